"""Where the API server is and how to log in: the pod's service account, else KUBECONFIG.

In a cluster only the standard library is needed. The Kubernetes client library, which reads kubeconfig files with all their
ways to log in, is imported only outside of one: it costs 35 MiB and the gateway's pods never need it.
"""

from __future__ import annotations

import os
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

from stoker.environment import NotConfigured

ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Projected tokens are renewed long before they expire, so a minute-old copy is always good.
TOKEN_MAX_AGE_SECONDS = 60.0


class ConnectionNotConfigured(NotConfigured):
    """Neither in a pod with a service account nor given a kubeconfig."""


@dataclass
class Connection:
    """One API server and the credentials for it."""

    server: str
    ca_file: str | None = None
    token_file: Path | None = None
    token: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    verify: bool = True
    _token_read_at: float = field(default=0.0, repr=False)

    def bearer_token(self, *, fresh: bool = False) -> str | None:
        """The token to send now; read anew from its file once a minute, for kubelet renews it."""
        if self.token_file is not None:
            now = time.monotonic()
            if fresh or self.token is None or now - self._token_read_at > TOKEN_MAX_AGE_SECONDS:
                self.token = self.token_file.read_text().strip()
                self._token_read_at = now
        return self.token

    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS settings; None for a plain HTTP server."""
        if not self.server.startswith("https:"):
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        # API servers of development clusters often carry a CA without the key-usage extension.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", ssl.VerifyFlags(0))
        if self.client_certificate:
            context.load_cert_chain(self.client_certificate, self.client_key)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


async def read_connection(context: str | None = None) -> Connection:
    """Find the API server: KUBECONFIG when it is set, else the pod's service account, else ~/.kube/config.

    A context is one of the kubeconfig's; by default its current one.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if host and _is_pod(context):
        return Connection(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            ca_file=str(ACCOUNT_FOLDER / "ca.crt"),
            token_file=ACCOUNT_FOLDER / "token",
        )
    return await _read_kubeconfig(context)


def read_namespace(context: str | None = None) -> str:
    """The namespace that kubectl would use now."""
    if _is_pod(context):
        return (ACCOUNT_FOLDER / "namespace").read_text().strip()
    from kubernetes.aio.config import ConfigException, list_kube_config_contexts

    try:
        contexts, current = list_kube_config_contexts()  # type: ignore[no-untyped-call]
    except (ConfigException, FileNotFoundError) as error:
        raise _not_configured(error) from error
    chosen = next((known for known in contexts if known["name"] == context), current)
    return str(chosen["context"].get("namespace") or "default")


def _is_pod(context: str | None) -> bool:
    return context is None and not os.environ.get("KUBECONFIG") and (ACCOUNT_FOLDER / "token").exists()


def _not_configured(error: Exception) -> ConnectionNotConfigured:
    return ConnectionNotConfigured(f"no service account in this pod and no usable kubeconfig ({error}); set KUBECONFIG")


async def _read_kubeconfig(context: str | None) -> Connection:
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException, load_kube_config

    configuration = Configuration()
    try:
        await load_kube_config(context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, FileNotFoundError) as error:
        raise _not_configured(error) from error
    authorization = str(configuration.api_key.get("BearerToken", ""))
    return Connection(
        server=configuration.host.rstrip("/"),
        ca_file=configuration.ssl_ca_cert,
        token=authorization.removeprefix("Bearer ").strip() or None,
        client_certificate=configuration.cert_file,
        client_key=configuration.key_file,
        verify=configuration.verify_ssl,
    )
