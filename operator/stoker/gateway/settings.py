"""Where a gateway pod keeps its files and listens: one place for the three processes and for Envoy's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stoker.environment import Environment

DEFAULT_FOLDER = Path("/run/stoker")


@dataclass(frozen=True)
class Settings:
    """Taken from the environment of the pod; all processes of a pod see the same."""

    namespace: str
    """Namespace of the ApiGateway."""
    name: str
    """Name of the ApiGateway."""
    folder: Path = DEFAULT_FOLDER
    """The emptyDir that Envoy's container mounts, too."""
    listen_address: str = "0.0.0.0"  # noqa: S104
    listen_port: int = 8080
    """Where Envoy takes requests."""
    inside_port: int = 8081
    """And where without TLS, where the web chat has to."""
    http_port: int = 9090
    """Where probes, metrics and load are served."""
    drain_port: int = 9091
    """Where the kubelet drains: a port of its own, for which the NetworkPolicy lets nobody in."""
    envoy_heap_bytes: int = 1 << 30
    """What Envoy may allocate before it refuses new requests."""
    drain_seconds: int = 540
    """How long /drain waits for running requests; the pod's grace period is longer."""

    @classmethod
    def from_environment(cls, environment: Environment) -> Settings:
        """Only name and namespace have no default."""
        return cls(
            namespace=environment.required("STOKER_GATEWAY_NAMESPACE"),
            name=environment.required("STOKER_GATEWAY_NAME"),
            folder=environment.folder("STOKER_GATEWAY_FOLDER", DEFAULT_FOLDER),
            listen_address=environment.text("STOKER_GATEWAY_ADDRESS", cls.listen_address),
            listen_port=environment.number("STOKER_GATEWAY_PORT", cls.listen_port),
            inside_port=environment.number("STOKER_GATEWAY_INSIDE_PORT", cls.inside_port),
            http_port=environment.number("STOKER_GATEWAY_HTTP_PORT", cls.http_port),
            drain_port=environment.number("STOKER_GATEWAY_DRAIN_PORT", cls.drain_port),
            envoy_heap_bytes=environment.number("STOKER_ENVOY_HEAP_BYTES", cls.envoy_heap_bytes),
            drain_seconds=environment.number("STOKER_DRAIN_SECONDS", cls.drain_seconds),
        )

    @property
    def bootstrap(self) -> Path:
        """What Envoy is started with (-c)."""
        return self.folder / "bootstrap.json"

    @property
    def xds(self) -> Path:
        """Listener, routes and clusters; endpoints in the folder eds below it."""
        return self.folder / "xds"

    @property
    def certificate(self) -> Path:
        """The certificate that Envoy serves with, and its key."""
        return self.xds / "sds.json"

    @property
    def authorities(self) -> Path:
        """Whose certificates Envoy trusts of backends outside."""
        return self.xds / "authorities.json"

    @property
    def state(self) -> Path:
        """The last configuration, so that a restarted process serves on while the API server is away."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """The access log's files."""
        return self.folder / "log"

    @property
    def policy_socket(self) -> Path:
        """Where Envoy asks."""
        return self.folder / "policy.sock"

    @property
    def answer_socket(self) -> Path:
        """Where Envoy sends what the gateway itself answers."""
        return self.folder / "answer.sock"

    @property
    def internal_socket(self) -> Path:
        """Envoy's listener for the relay, which no client can reach."""
        return self.folder / "internal.sock"

    @property
    def admin_socket(self) -> Path:
        """Envoy's admin interface: a file, so that nothing outside the pod can reach it."""
        return self.folder / "admin.sock"
