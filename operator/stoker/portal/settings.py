"""What the portal's pod tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stoker.environment import Environment, NotConfigured

SHORTEST_SECRET = 32


@dataclass(frozen=True)
class Settings:
    """Taken from the environment once."""

    namespace: str
    gateway: str
    session_secret: str = field(repr=False)
    """Signs session cookies; whoever has it can sign in as anybody."""
    oidc_client_secret: str = field(default="", repr=False)
    read_token: str = field(default="", repr=False)
    """Opens the gateway's usage and load, for reading."""
    usage_url: str = ""
    """Of the gateway's usage process; empty where none is kept."""
    gateway_pods: str = ""
    """host:port, whose addresses are the gateway's pods; empty where the load is nobody's business."""
    port: int = 8080

    @classmethod
    def from_environment(cls, environment: Environment) -> Settings:
        """Secrets are files: an environment is shown by whatever describes the pod."""
        folder = Path(environment.required("STOKER_PORTAL_SECRETS"))
        secret = _read(folder / "session" / "sessionKey")
        if len(secret) < SHORTEST_SECRET:
            raise NotConfigured(
                f"{folder}/session/sessionKey is not there or shorter than {SHORTEST_SECRET} characters"
            )
        return cls(
            namespace=environment.required("STOKER_PORTAL_NAMESPACE"),
            gateway=environment.required("STOKER_PORTAL_GATEWAY"),
            session_secret=secret,
            oidc_client_secret=_read(folder / "oidc" / "clientSecret"),
            read_token=_read(folder / "session" / "readToken"),
            usage_url=environment.text("STOKER_PORTAL_USAGE_URL"),
            gateway_pods=environment.text("STOKER_PORTAL_GATEWAY_PODS"),
            port=environment.number("STOKER_PORTAL_PORT", cls.port),
        )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
