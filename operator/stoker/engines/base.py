"""What every engine says about itself, and the checks that are the same for all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from stoker.api.inference_engine import EngineType, Vendor
from stoker.api.model_deployment import Task
from stoker.errors import Stalled

_NUMBER = re.compile(r"-[0-9.]+(e[+-]?[0-9]+)?")


@dataclass(frozen=True)
class EngineRequest:
    """What one replica shall serve, in the domain's words; an engine turns it into its own flags."""

    served_name: str
    model_path: str
    task: Task = "Chat"
    aliases: tuple[str, ...] = ()
    context_length: int | None = None
    """Tokens of context of one request; None: what the model was trained with."""
    slots: int = 4
    """Requests worked on at a time."""
    vendor: Vendor = "None"
    gpus: int = 0
    cpu_limit: Decimal | None = None
    memory_limit: Decimal | None = None
    """Bytes."""
    chat_template_path: str | None = None
    engine_name: str = ""
    engine_args: tuple[str, ...] = ()
    engine_env: tuple[str, ...] = ()
    """Names of the variables; values stay where they are."""
    deployment_name: str = ""
    deployment_args: tuple[str, ...] = ()
    deployment_env: tuple[str, ...] = ()

    @property
    def args(self) -> tuple[str, ...]:
        """The users' arguments: the model's after the engine's, so that the model's win."""
        return self.engine_args + self.deployment_args


def _always(_: EngineRequest) -> bool:
    return True


@dataclass(frozen=True)
class ManagedFlags:
    """Flags and variables that a user may not set, since a field or Stoker itself does."""

    flags: frozenset[str]
    instead: str
    """The next step for the user."""
    env: frozenset[str] = frozenset()
    when: Callable[[EngineRequest], bool] = _always
    """Whether the matching field is set; a flag whose field is not set is the user's."""


@dataclass(frozen=True)
class Engine:
    """One inference server: the only thing a new engine has to provide."""

    type: EngineType
    title: str
    """How its makers write it."""
    images: Mapping[Vendor, str]
    """Pinned image by accelerator."""
    port: int
    health_path: str
    """200 only when the model is loaded."""
    metrics_path: str
    running_metric: str
    waiting_metric: str
    prompt_tokens_metric: str
    completion_tokens_metric: str
    tasks: frozenset[Task]
    managed: tuple[ManagedFlags, ...]
    build_command: Callable[[EngineRequest], tuple[str, ...]]
    """The generated command; the users' arguments are appended by ``command``."""
    normalize_env: Callable[[str], str] = str
    """Maps spellings of a variable's name that the engine takes for the same."""

    def image(self, vendor: Vendor) -> str | None:
        """The pinned image for an accelerator, None where its makers publish none."""
        return self.images.get(vendor)

    def command(self, request: EngineRequest) -> tuple[str, ...]:
        """The whole command line: users' arguments last."""
        return self.build_command(request) + request.args

    def check(self, request: EngineRequest) -> None:
        """Refuse what this engine cannot do, before a pod exists."""
        if request.task not in self.tasks:
            served = ", ".join(sorted(self.tasks))
            raise Stalled(
                "UnsupportedTask",
                f"{self.title} cannot serve task {request.task} of ModelDeployment {request.deployment_name}: "
                f"set spec.task to one of {served}, or name another engine",
            )
        if request.gpus > 0 and request.vendor == "None":
            raise Stalled(
                "UnsupportedField",
                f"ModelDeployment {request.deployment_name} asks for gpus: {request.gpus}, but InferenceEngine "
                f"{request.engine_name} computes on the CPU: remove spec.gpus, or set accelerator.vendor of the engine",
            )
        self._check_arguments(request, request.engine_args, f"InferenceEngine {request.engine_name}")
        self._check_arguments(request, request.deployment_args, f"ModelDeployment {request.deployment_name}")
        self._check_env(request, request.engine_env, f"InferenceEngine {request.engine_name}")
        self._check_env(request, request.deployment_env, f"ModelDeployment {request.deployment_name}")

    def _check_arguments(self, request: EngineRequest, args: Iterable[str], where: str) -> None:
        for argument in args:
            flag = flag_name(argument)
            for group in self.managed:
                if flag and group.when(request) and _means_one_of(flag, group.flags):
                    raise Stalled(
                        "ManagedArgument",
                        f"{where} sets {flag} in spec.args, which Stoker manages: remove it; {group.instead}",
                    )

    def _check_env(self, request: EngineRequest, names: Iterable[str], where: str) -> None:
        for name in names:
            for group in self.managed:
                if group.when(request) and self.normalize_env(name) in group.env:
                    raise Stalled(
                        "ManagedArgument",
                        f"{where} sets {name} in spec.env, which Stoker manages: remove it; {group.instead}",
                    )


def flag_name(argument: str) -> str | None:
    """The flag in one word of a command line, spelled as in the engine's help; None for a value."""
    if not argument.startswith("-") or argument in ("-", "--") or _NUMBER.fullmatch(argument):
        return None
    name = argument.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name


def _means_one_of(flag: str, managed: frozenset[str]) -> bool:
    """Whether an argument parser could take the flag for a managed one: by name, or by a beginning of it."""
    if flag in managed:
        return True
    return flag.startswith("--") and any(name.startswith(flag) for name in managed if name.startswith("--"))
