"""What a bench of the operator notes down, line by line, and the table that its page shows."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """One line of the table."""

    what: str
    value: str
    target: str
    met: bool

    @property
    def verdict(self) -> str:
        """Whether a target was met; nothing where there is none."""
        if self.target == "–":
            return ""
        return "yes" if self.met else "**no**"


@dataclass(kw_only=True)
class Notes:
    """The run so far."""

    outcomes: list[Outcome] = field(default_factory=list)

    def note(self, what: str, value: str, target: str, met: bool = True) -> None:
        """Add a line and show it."""
        self.outcomes.append(Outcome(what, value, target, met))
        print(f"  {'ok    ' if met else 'MISSED'} {what}: {value} (target {target})", flush=True)

    @property
    def met(self) -> bool:
        """Whether no target was missed."""
        return all(outcome.met for outcome in self.outcomes)

    @property
    def table(self) -> str:
        """In Markdown."""
        head = "| what | measured | target | met |\n|---|---|---|---|\n"
        return head + "\n".join(f"| {o.what} | {o.value} | {o.target} | {o.verdict} |" for o in self.outcomes)
