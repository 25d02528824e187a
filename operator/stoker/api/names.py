"""Names of children, labels and annotations: one place, so that whoever writes and whoever reads agree."""

from __future__ import annotations

import hashlib

from stoker.api.base import GROUP, Resource

FIELD_MANAGER = "stoker"

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
INSTANCE = "app.kubernetes.io/instance"
NAME = "app.kubernetes.io/name"

MANAGED_BY_VALUE = "stoker"
"""Value of the managed-by label on every child."""

OWNER_LABELS = {
    "InferenceEngine": f"{GROUP}/inference-engine",
    "ModelDeployment": f"{GROUP}/model-deployment",
    "ApiGateway": f"{GROUP}/api-gateway",
    "ApiKey": f"{GROUP}/api-key",
}
"""Label that leads from a child to its owner, by the owner's kind; its value is the owner's name."""

ROUTABLE_LABEL = f"{GROUP}/routable"
"""Pod label; "false" takes a pod out of routing while its ReplicaSet keeps it."""

RESOLVED_ANNOTATION = f"{GROUP}/resolved"
"""On the child Deployment: the chosen values as JSON (docs/decisions/0004)."""
REFRESH_ANNOTATION = f"{GROUP}/refresh"
"""On a ModelDeployment: a new value makes Stoker choose anew."""
OVERRIDE_ANNOTATION = f"{GROUP}/replicas-override"
"""On a ModelDeployment: so many replicas, whatever replicas and autoscaling say; for incidents."""
ROTATE_ANNOTATION = f"{GROUP}/rotate"
"""On an ApiKey: a new value makes a new key; the old one goes on for its grace period."""

ACCOUNT_ANNOTATION = f"{GROUP}/service-account-uid"
"""On pods that talk to the API server: a ServiceAccount made anew replaces them, for their tokens died with the old one."""

CONFIG_ANNOTATION = f"{GROUP}/config-digest"
"""On engine pods: a changed configuration file replaces them."""

TITLE_ANNOTATION = f"{GROUP}/title"
"""On ApiKeys made in the portal: what the person calls it."""
KEY_PREFIX_ANNOTATION = f"{GROUP}/key-prefix"
"""On ApiKeys made in the portal: the first characters of the key, of which only the hash is kept."""
PORTAL_LABEL = f"{GROUP}/made-in-portal-of"
"""On ApiKeys made in the portal: the gateway."""

KEY_SECRET_FIELD = "apiKey"
"""Key in the Secret of an ApiKey."""
JWT_SECRET_FIELD = "secret"
"""Key in the Secret of a JWT issuer that signs with HS256."""
CERTIFICATE_FIELD, CERTIFICATE_KEY_FIELD = "tls.crt", "tls.key"
"""Keys in a Secret of type kubernetes.io/tls."""
CLIENT_SECRET_FIELD = "clientSecret"
"""Key in the Secret of an OpenID Connect client."""
URL_FIELD = "url"
"""Key in the Secret of a database or of Redis."""
USAGE_TOKEN_FIELD = "token"
"""Key in the Secret <gateway>-usage: the bearer token between a gateway's parts."""
ENGINE_KEY_FIELD = "key"
"""Key in the Secret of an engine that asks for one."""
SOURCE_TOKEN_FIELD = "token"
"""Key in the Secret of a model source."""
ROUTES_FIELD, KEYS_FIELD = "routes.json", "keys.json"
"""Keys in the Secrets by which the operator tells a gateway its models and its callers."""


def child_labels(owner: Resource, component: str) -> dict[str, str]:
    """Labels of every child; the owner label is what pruning selects on."""
    return {
        MANAGED_BY: MANAGED_BY_VALUE,
        NAME: "stoker-" + component,
        INSTANCE: owner.metadata.name,
        COMPONENT: component,
        OWNER_LABELS[owner.info.kind]: owner.metadata.name,
    }


def cache_claim_name(engine: str) -> str:
    """PersistentVolumeClaim with the weights of an engine's models."""
    return f"{engine}-cache"


def config_map_name(deployment: str) -> str:
    """ConfigMap with the configuration files of a ModelDeployment's engine."""
    return f"{deployment}-config"


def engine_key_secret_name(deployment: str) -> str:
    """Secret with the key that the engine of a ModelDeployment asks for."""
    return f"{deployment}-engine-key"


def routes_secret_name(gateway: str) -> str:
    """Secret with what a gateway routes: models, limits, names of the key Secrets."""
    return f"{gateway}-routes"


def keys_secret_name(gateway: str, index: int) -> str:
    """Secret with a slice of a gateway's key hashes; a Secret holds at most 1 MiB."""
    return f"{gateway}-keys-{index}"


def usage_name(gateway: str) -> str:
    """What keeps a gateway's usage: StatefulSet, Service, claim and the rest."""
    return f"{gateway}-usage"


def gateway_pods_name(gateway: str) -> str:
    """Service that names every pod of a gateway by itself, on the port of its policy container."""
    return f"{gateway}-pods"


def gateway_inside_name(gateway: str) -> str:
    """Service by which the web chat calls a gateway whose own one serves TLS."""
    return f"{gateway}-inside"


def admin_key_name(gateway: str) -> str:
    """ApiKey that Stoker makes for a gateway."""
    return f"{gateway}-admin"


def client_files_name(gateway: str) -> str:
    """ConfigMap with the settings of client programs."""
    return f"{gateway}-clients"


def web_ui_name(gateway: str) -> str:
    """StatefulSet, Service, claim and ApiKey of a gateway's web chat."""
    return f"{gateway}-webui"


def web_ui_admin_name(gateway: str) -> str:
    """Secret with the login of a web chat's first admin."""
    return f"{gateway}-webui-admin"


def web_ui_secrets_name(gateway: str) -> str:
    """Secret with what a web chat signs sessions and users with."""
    return f"{gateway}-webui-secrets"


def portal_name(gateway: str) -> str:
    """The portal's Deployment, Service, ServiceAccount, and the ConfigMap and Secret with what it is told."""
    return f"{gateway}-portal"


def cluster_name(namespace: str, deployment: str) -> str:
    """Envoy's name for the endpoints of a ModelDeployment."""
    return f"{namespace}/{deployment}"


def short_digest(text: str) -> str:
    """16 hex digits of SHA-256: enough to tell sources apart, short enough for a folder name."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
