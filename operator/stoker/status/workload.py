"""How to speak of a workload's pods."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """The pods of a ModelDeployment or of an ApiGateway."""

    kind: str
    name: str
    main: str
    """Name of the container that serves."""
    subject: str
    """Beginning of the reasons about it: Engine, Gateway."""
    noun: str
    child: str = ""
    """What makes its pods, where that is not the Deployment of this name."""
    device: str = ""
    """Extended resource of its accelerators."""
    startup_deadline_seconds: int | None = None
    drain_timeout_seconds: int | None = None
    memory_advice: str = "raise resources.limits.memory"

    @property
    def maker(self) -> str:
        """Kind and name of what makes its pods."""
        return self.child or f"Deployment {self.name}"
