"""The container that brings weights, or only looks at them, before the engine starts."""

from __future__ import annotations

from typing import Any

from stoker.api.names import SOURCE_TOKEN_FIELD
from stoker.api.resolved import OperatorSettings, ResolvedModelDeployment
from stoker.desired.engine_request import build_resolved_fit_request, engine_row, folder_name, model_path
from stoker.desired.objects import RUN_DIRECTORY, Object, compact_json, container_defaults
from stoker.engines.base import MODELS_DIRECTORY
from stoker.models.source import file_urls

HUB_TOKEN_VARIABLE = "HF_TOKEN"
HUB_ADDRESS_VARIABLE = "HF_ENDPOINT"
PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
PROGRESS_FILE = f"{RUN_DIRECTORY}/progress.json"

_RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


def build_fetch_container(resolved: ResolvedModelDeployment, settings: OperatorSettings) -> Object:
    """Its orders are all in its environment."""
    source, secret = resolved.source, resolved.deployment.spec.source.secret_ref
    order = {
        "digest": source.identity,
        "progressFile": PROGRESS_FILE,
        "fit": build_resolved_fit_request(resolved).to_json(),
        "fitPolicy": resolved.deployment.spec.fit_policy,
        **(_download(resolved) if source.downloaded else _look(resolved)),
    }
    if engine_row(resolved).needs_context_length and resolved.chosen.context_length is None:
        order["hold"] = True
    env: list[Object] = [{"name": "STOKER_FETCH", "value": compact_json(order)}]
    if secret:
        token = {"name": secret.name, "key": SOURCE_TOKEN_FIELD}
        env.append({"name": "STOKER_FETCH_TOKEN", "valueFrom": {"secretKeyRef": token}})
    if source.shape == "Repository":
        env += _hub_env(resolved, has_token=bool(secret))
    mounts = [mount("run", RUN_DIRECTORY), mount("tmp", "/tmp")]  # noqa: S108
    if source.shape != "Repository":
        read_only = {} if source.downloaded else {"readOnly": True}
        mounts.insert(0, mount("models", models_mount(resolved), **read_only))
    return {
        "name": "fetch",
        "image": resolved.chosen.stoker_image,
        "imagePullPolicy": settings.stoker_image_pull_policy,
        "args": ["fetch"],
        "env": env,
        "resources": _RESOURCES,
        **container_defaults(),
        "volumeMounts": mounts,
    }


def _download(resolved: ResolvedModelDeployment) -> Object:
    source = resolved.source
    checksums = resolved.deployment.spec.source.sha256 or {}
    files = [
        {"name": name, "url": url, **({"sha256": checksums[name]} if name in checksums else {})}
        for name, url in zip(source.files, file_urls(source), strict=True)
    ]
    return {"cache": MODELS_DIRECTORY, "files": files}


def _look(resolved: ResolvedModelDeployment) -> Object:
    source = resolved.source
    if source.shape == "Repository":
        hub = _stated_hub(resolved)
        return {
            "look": "Repository",
            "place": source.reference,
            **({"revision": source.revision} if source.revision else {}),
            **({"hub": hub} if hub else {}),
        }
    path = model_path(resolved)
    if source.shape == "Folder":
        return {"look": "Folder", "place": path}
    return {"look": "Files", "place": path.rpartition("/")[0], "files": [{"name": name} for name in source.files]}


def _hub_env(resolved: ResolvedModelDeployment, *, has_token: bool) -> list[Object]:
    """The way to the hub that the engine was given: proxies, and a token that came as a variable."""
    found = _variables(resolved)
    env = [found[name] for name in PROXY_VARIABLES if name in found]
    if HUB_TOKEN_VARIABLE in found and not has_token:
        env.append({**found[HUB_TOKEN_VARIABLE], "name": "STOKER_FETCH_TOKEN"})
    return env


def _stated_hub(resolved: ResolvedModelDeployment) -> str:
    """A mirror, where the engine is told of one."""
    return str(_variables(resolved).get(HUB_ADDRESS_VARIABLE, {}).get("value") or "")


def _variables(resolved: ResolvedModelDeployment) -> dict[str, Object]:
    variables = [*(resolved.engine.spec.env or []), *(resolved.deployment.spec.env or [])]
    return {str(variable.get("name")): dict(variable) for variable in variables}


def models_mount(resolved: ResolvedModelDeployment) -> str:
    """A model's folder on the node keeps its name: some engines show it as the model's."""
    if resolved.source.scheme == "file" and resolved.source.shape == "Folder":
        return f"{MODELS_DIRECTORY}/{folder_name(resolved)}"
    return MODELS_DIRECTORY


def mount(name: str, path: str, **more: Any) -> Object:
    """An entry of volumeMounts."""
    return {"name": name, "mountPath": path, **more}
