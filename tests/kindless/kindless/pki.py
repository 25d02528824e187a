"""Certificates: two authorities, two servers, and a client certificate for each component."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from .cluster import Cluster

# file name: (common name, organization); the API server's built-in roles are bound to these names
CLIENTS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "apiserver-kubelet-client": ("kube-apiserver-kubelet-client", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
}


def write_pki(cluster: Cluster) -> None:
    cluster.pki.mkdir(mode=0o700)
    node = f"system:node:{cluster.node_name}"
    certificates = [certificate(name, common, organization) for name, (common, organization) in CLIENTS.items()]
    certificates += [
        certificate("kubelet", node, "system:nodes"),
        certificate("front-proxy", "front-proxy-client", authority="front-ca"),
        certificate("kubelet-server", node, "system:nodes", names=[cluster.node_name], addresses=[cluster.node_ip]),
        certificate(
            "apiserver",
            "kube-apiserver",
            names=[
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "localhost",
                cluster.node_name,
            ],
            addresses=["127.0.0.1", cluster.node_ip, cluster.api_service_ip],
        ),
    ]
    request = {
        "directory": str(cluster.pki),
        "authorities": ["ca", "front-ca"],
        "keyPairs": ["sa"],
        "certificates": certificates,
    }
    subprocess.run([cluster.kubebox, "pki"], input=json.dumps(request), text=True, check=True)
    for user in ("controller-manager", "scheduler", "proxy", "kubelet"):
        write_kubeconfig(cluster, user, cluster.supervisor_endpoint, cluster.directory / f"{user}.conf")
    write_kubeconfig(cluster, "admin", cluster.supervisor_endpoint, cluster.directory / "admin-inside.conf")
    write_kubeconfig(cluster, "admin", cluster.endpoint, cluster.admin_kubeconfig)


def certificate(
    name: str,
    common_name: str,
    organization: str = "",
    authority: str = "ca",
    names: list[str] | None = None,
    addresses: list[str] | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "authority": authority,
        "commonName": common_name,
        "organizations": [organization] if organization else [],
        "dnsNames": names or [],
        "addresses": addresses or [],
    }


def write_kubeconfig(cluster: Cluster, user: str, endpoint: str, path: Path) -> None:
    """With the certificates inside, since clients other than kubectl do not all follow file names."""

    def embedded(file: str) -> str:
        return base64.b64encode((cluster.pki / file).read_bytes()).decode()

    name = f"kind-{cluster.name}"
    server = {"server": endpoint, "certificate-authority-data": embedded("ca.crt")}
    login = {"client-certificate-data": embedded(f"{user}.crt"), "client-key-data": embedded(f"{user}.key")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": name,
        "clusters": [{"name": name, "cluster": server}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": login}],
    }
    path.write_text(json.dumps(config, indent=1))
    path.chmod(0o600)
