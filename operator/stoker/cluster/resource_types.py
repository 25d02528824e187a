"""The kinds of objects Stoker reads or writes, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stoker.api.base import API_VERSION

Object = dict[str, Any]
"""A Kubernetes object as JSON has it: typed models of the client library cost more CPU than the request."""


@dataclass(frozen=True)
class ResourceType:
    """One kind of object in one API version."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""

    @property
    def version(self) -> str:
        """Version without the group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """URL path of the collection, of one object, or of its subresource."""
        parts = ["/apis" if "/" in self.api_version else "/api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


INFERENCE_ENGINES = ResourceType(API_VERSION, "inferenceengines", "InferenceEngine")
MODEL_DEPLOYMENTS = ResourceType(API_VERSION, "modeldeployments", "ModelDeployment")
API_GATEWAYS = ResourceType(API_VERSION, "apigateways", "ApiGateway")
API_KEYS = ResourceType(API_VERSION, "apikeys", "ApiKey")
OWN_TYPES = (INFERENCE_ENGINES, MODEL_DEPLOYMENTS, API_GATEWAYS, API_KEYS)

DEPLOYMENTS = ResourceType("apps/v1", "deployments", "Deployment")
STATEFUL_SETS = ResourceType("apps/v1", "statefulsets", "StatefulSet")
SERVICES = ResourceType("v1", "services", "Service")
SERVICE_ACCOUNTS = ResourceType("v1", "serviceaccounts", "ServiceAccount")
CLAIMS = ResourceType("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CONFIG_MAPS = ResourceType("v1", "configmaps", "ConfigMap")
NETWORK_POLICIES = ResourceType("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy")
INGRESSES = ResourceType("networking.k8s.io/v1", "ingresses", "Ingress")
HTTP_ROUTES = ResourceType("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute")
DISRUPTION_BUDGETS = ResourceType("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
ROLES = ResourceType("rbac.authorization.k8s.io/v1", "roles", "Role")
ROLE_BINDINGS = ResourceType("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
WATCHED_CHILD_TYPES = (
    DEPLOYMENTS,
    STATEFUL_SETS,
    SERVICES,
    SERVICE_ACCOUNTS,
    CLAIMS,
    CONFIG_MAPS,
    NETWORK_POLICIES,
    INGRESSES,
    DISRUPTION_BUDGETS,
    ROLES,
    ROLE_BINDINGS,
)
"""Children of which deletions and edits are noticed at once; Secrets are not among them, since no rule of RBAC
narrows a watch to ours, and neither are HTTPRoutes, which a cluster need not know."""

PODS = ResourceType("v1", "pods", "Pod")
SECRETS = ResourceType("v1", "secrets", "Secret")
EVENTS = ResourceType("events.k8s.io/v1", "events", "Event")
LEASES = ResourceType("coordination.k8s.io/v1", "leases", "Lease")
ENDPOINT_SLICES = ResourceType("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
NAMESPACES = ResourceType("v1", "namespaces", "Namespace", namespaced=False)
NODES = ResourceType("v1", "nodes", "Node", namespaced=False)
RESOURCE_SLICES = ResourceType("resource.k8s.io/v1", "resourceslices", "ResourceSlice", namespaced=False)
"""Stable since Kubernetes 1.34; an older cluster does not serve them in this version."""
CLUSTER_TYPES = (NAMESPACES, NODES, RESOURCE_SLICES)
"""Of all others' objects, these are read whole, where that is allowed and the cluster knows them."""

TYPE_BY_KIND = {
    known.kind: known
    for known in (*OWN_TYPES, *WATCHED_CHILD_TYPES, HTTP_ROUTES, PODS, SECRETS, ENDPOINT_SLICES, *CLUSTER_TYPES)
}
"""Kinds are unique among the types Stoker handles, so an object's ``kind`` is enough to find its type."""


def type_of(obj: Object) -> ResourceType:
    """The type of an object that names its kind."""
    return TYPE_BY_KIND[obj["kind"]]
