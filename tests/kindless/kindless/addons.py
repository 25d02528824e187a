"""What a fresh node is given: DNS, dynamic volumes, and on request nodes that exist on paper only.

The add-ons are real pods that need no image of their own: the pause image with kubebox mounted into it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .api import JsonObject
from .cluster import Cluster
from .components import PAUSE_IMAGE

# The order of the blocks is of no account to CoreDNS. Names outside the cluster fail at once: there is no way out.
COREFILE = """.:53 {
    errors
    health {
        lameduck 1s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }
    hosts /etc/coredns/hosts {
        fallthrough
    }
    template ANY ANY {
        rcode NXDOMAIN
    }
    prometheus :9153
    cache 5
    loadbalance
}
"""
PROVISIONER = "rancher.io/local-path"
KWOK_ANNOTATION = "kwok.x-k8s.io/node"


def addons(cluster: Cluster) -> Iterator[tuple[str, JsonObject]]:
    """Paths and objects to create there, in this order."""
    yield from dns(cluster)
    yield from volumes(cluster)


def dns(cluster: Cluster) -> Iterator[tuple[str, JsonObject]]:
    labels = {"k8s-app": "kube-dns"}
    rules = [
        rule("", ["endpoints", "services", "pods", "namespaces"], ["list", "watch"]),
        rule("discovery.k8s.io", ["endpointslices"], ["list", "watch"]),
    ]
    yield from service_account("coredns", "system:coredns", rules)
    hosts = f"{cluster.host_ip} host.docker.internal host.kind.internal\n"
    yield (
        "/api/v1/namespaces/kube-system/configmaps",
        {"metadata": {"name": "coredns"}, "data": {"Corefile": COREFILE, "hosts": hosts}},
    )
    container = {
        "command": ["/kubebox", "coredns", "-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "ports": [
            {"containerPort": 53, "protocol": "UDP", "name": "dns"},
            {"containerPort": 53, "protocol": "TCP", "name": "dns-tcp"},
        ],
    }
    config = {"name": "config", "configMap": {"name": "coredns"}}
    yield deployment(cluster, "coredns", labels, container, config, "/etc/coredns")
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "metrics", "port": 9153},
    ]
    yield (
        "/api/v1/namespaces/kube-system/services",
        {
            "metadata": {"name": "kube-dns", "labels": labels},
            "spec": {"clusterIP": cluster.dns_ip, "selector": labels, "ports": ports},
        },
    )


def volumes(cluster: Cluster) -> Iterator[tuple[str, JsonObject]]:
    rules = [
        rule("", ["persistentvolumeclaims", "nodes"], ["get", "list", "watch"]),
        rule("", ["persistentvolumes"], ["get", "list", "watch", "create", "delete"]),
        rule("storage.k8s.io", ["storageclasses"], ["get", "list", "watch"]),
    ]
    yield from service_account("provisioner", "stoker:provisioner", rules)
    directory = str(cluster.directory / "volumes")
    container = {"command": ["/kubebox", "provisioner", "-directory", directory, "-name", PROVISIONER]}
    place = {"name": "volumes", "hostPath": {"path": directory, "type": "DirectoryOrCreate"}}
    yield deployment(cluster, "provisioner", {"app": "provisioner"}, container, place, directory)
    yield (
        "/apis/storage.k8s.io/v1/storageclasses",
        {
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )


def rule(group: str, resources: list[str], verbs: list[str]) -> JsonObject:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def service_account(name: str, role: str, rules: list[JsonObject]) -> Iterator[tuple[str, JsonObject]]:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    yield "/api/v1/namespaces/kube-system/serviceaccounts", {"metadata": {"name": name}}
    yield f"{rbac}/clusterroles", {"metadata": {"name": role}, "rules": rules}
    yield (
        f"{rbac}/clusterrolebindings",
        {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}],
        },
    )


def deployment(
    cluster: Cluster, name: str, labels: Mapping[str, str], container: JsonObject, volume: JsonObject, mounted_at: str
) -> tuple[str, JsonObject]:
    program = {"name": "kubebox", "hostPath": {"path": str(cluster.kubebox), "type": "File"}}
    mounts = [
        {"name": "kubebox", "mountPath": "/kubebox", "readOnly": True},
        {"name": volume["name"], "mountPath": mounted_at},
    ]
    pod = {
        "serviceAccountName": name,
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        # Never on a KWOK node, where nothing runs.
        "nodeSelector": {"kubernetes.io/hostname": cluster.node_name},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {"name": name, "image": PAUSE_IMAGE, "imagePullPolicy": "Never", "volumeMounts": mounts, **container}
        ],
        "volumes": [program, volume],
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    return "/apis/apps/v1/namespaces/kube-system/deployments", body


def kwok_node(cluster: Cluster, index: int, capacity: Mapping[str, str]) -> JsonObject:
    """Tainted where there is a real node, so that only pods which tolerate it go where nothing runs."""
    name = f"kwok-{index}"
    taint = {"key": KWOK_ANNOTATION, "value": "fake", "effect": "NoSchedule"}
    resources = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "4Ti", "pods": "1000", **capacity}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "type": "kwok",
    }
    spec: dict[str, Any] = {} if cluster.control_plane_only else {"taints": [taint]}
    return {
        "metadata": {"name": name, "labels": labels, "annotations": {KWOK_ANNOTATION: "fake"}},
        "spec": spec,
        "status": {"capacity": resources, "allocatable": resources},
    }
