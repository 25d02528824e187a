"""Routes as a gateway's pods are told of them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stoker.api.api_gateway import ApiGateway
from stoker.api.names import KEY_SECRET_FIELD
from stoker.api.resolved import PublishedModel
from stoker.api.routes import ExternalModel, NamedRoute
from stoker.desired.objects import Object
from stoker.errors import Stalled


def build_named_routes(gateway: ApiGateway, secrets: Mapping[str, str]) -> list[Object]:
    """Backends outside whose Secret is missing are left out: their API would refuse every request."""
    return [_route(route, secrets) for route in gateway.spec.routes]


def backend_secrets(gateway: ApiGateway) -> set[str]:
    """Names of the Secrets with keys of backends outside."""
    return {
        fallback.external.secret_ref.name
        for route in gateway.spec.routes
        for fallback in route.fallbacks
        if fallback.external and fallback.external.secret_ref
    }


def check_named_routes(gateway: ApiGateway, models: Iterable[PublishedModel], secrets: Mapping[str, str]) -> None:
    """Say what is missing. Asked after the pods were told the rest."""
    where = f"ApiGateway {gateway.metadata.name}"
    served = {name for model in models for name in model.deployment.served_names}
    for route in gateway.spec.routes:
        named = [entry.model for entry in route.models] + [entry.model for entry in route.fallbacks if entry.model]
        missing = next((name for name in named if name not in served), None)
        if missing is not None:
            raise Stalled(
                "RouteModelNotFound",
                f"{where}: route {route.name} names the model {missing}, which this gateway does not publish, and goes on without it: "
                "create its ModelDeployment, or correct the name (kubectl get modeldeployments)",
            )
        for fallback in route.fallbacks:
            if fallback.external and _lacks_key(fallback.external, secrets):
                name = fallback.external.secret_ref.name if fallback.external.secret_ref else ""
                raise Stalled(
                    "BackendSecretMissing",
                    f"{where}: route {route.name} goes on without {fallback.external.url}, since Secret {name} has no {KEY_SECRET_FIELD}: "
                    f"kubectl create secret generic {name} --from-literal={KEY_SECRET_FIELD}=…",
                )


def _lacks_key(external: ExternalModel, secrets: Mapping[str, str]) -> bool:
    return external.secret_ref is not None and not secrets.get(external.secret_ref.name)


def _route(route: NamedRoute, secrets: Mapping[str, str]) -> Object:
    backends: list[Object] = [{"model": entry.model, "weight": entry.weight} for entry in route.models]
    for fallback in route.fallbacks:
        if fallback.external is None:
            backends.append({"model": fallback.model})
        elif not _lacks_key(fallback.external, secrets):
            reference = fallback.external.secret_ref
            key = secrets[reference.name].strip() if reference else None
            backends.append({"model": fallback.external.model, "url": fallback.external.url, "key": key})
    return {"name": route.name, "backends": backends}
