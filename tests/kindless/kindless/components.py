"""The command lines and configuration files of the components."""

import json
from collections.abc import Sequence
from pathlib import Path

from .cluster import Cluster

PAUSE_IMAGE = "docker.io/stoker/pause:local"
# Kept from the kubelet, for which they are machine-wide settings: it finds the values it wants and writes nothing.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
Command = Sequence[str]


def program(cluster: Cluster, component: str) -> list[str]:
    return [str(cluster.kubebox), component]


def etcd(cluster: Cluster) -> Command:
    """On unix sockets, so that no two clusters want the same port. Nothing here is worth an fsync."""
    never_dialled = "http://127.0.0.1:2380"  # a lone member; but etcd insists on a host and a port
    return [
        *program(cluster, "etcd"),
        *("--unsafe-no-fsync", "--log-level=warn", "--name=only"),
        f"--data-dir={cluster.directory}/etcd",
        f"--listen-client-urls=unix://{cluster.etcd_socket}",
        f"--listen-peer-urls=unix://{cluster.directory}/peer.sock",
        f"--advertise-client-urls={never_dialled}",
        f"--initial-advertise-peer-urls={never_dialled}",
        f"--initial-cluster=only={never_dialled}",
        "--heartbeat-interval=50",  # a short election is most of etcd's start
        "--election-timeout=250",
        f"--quota-backend-bytes={900 << 20}",
    ]


def apiserver(cluster: Cluster) -> Command:
    pki = cluster.pki
    if cluster.control_plane_only:
        # It would publish its own address for pods to use, refuses to publish loopback, and there are no pods.
        place = ["--bind-address=127.0.0.1", f"--secure-port={cluster.api_port}", "--advertise-address=127.0.0.1"]
        place += ["--endpoint-reconciler-type=none", "--permit-port-sharing=true"]
    else:
        place = ["--bind-address=0.0.0.0", "--secure-port=6443", f"--advertise-address={cluster.node_ip}"]
    return [
        *program(cluster, "kube-apiserver"),
        f"--etcd-servers=unix://{cluster.etcd_socket}",
        *place,
        f"--service-cluster-ip-range={cluster.service_cidr}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={pki}/front-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        "--profiling=false",
    ]


def controller_manager(cluster: Cluster) -> Command:
    pki, kubeconfig = cluster.pki, cluster.directory / "controller-manager.conf"
    return [
        *program(cluster, "kube-controller-manager"),
        *as_user(kubeconfig),
        f"--client-ca-file={pki}/ca.crt",
        f"--requestheader-client-ca-file={pki}/front-ca.crt",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=false",
        f"--cluster-name={cluster.name}",
    ]


def scheduler(cluster: Cluster) -> Command:
    return [*program(cluster, "kube-scheduler"), *as_user(cluster.directory / "scheduler.conf")]


def as_user(kubeconfig: Path) -> list[str]:
    """For a controller that is alone: no leader election, no metrics port that a second cluster would miss, no waiting on quotas."""
    logins = [
        f"--{flag}={kubeconfig}" for flag in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    ]
    return [
        *logins,
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def kubelet(cluster: Cluster) -> Command:
    return [
        *program(cluster, "kubelet"),
        f"--config={cluster.directory}/kubelet.json",
        f"--kubeconfig={cluster.directory}/kubelet.conf",
        f"--hostname-override={cluster.node_name}",
        f"--node-ip={cluster.node_ip}",
        "--node-labels=ingress-ready=true",
        "--root-dir=/var/lib/kubelet",
    ]


def kube_proxy(cluster: Cluster) -> Command:
    return [*program(cluster, "kube-proxy"), f"--config={cluster.directory}/proxy.json"]


def netpol(cluster: Cluster) -> Command:
    return [*program(cluster, "netpol"), f"-kubeconfig={cluster.directory}/admin-inside.conf"]


def containerd(cluster: Cluster) -> Command:
    return ["containerd", "-c", f"{cluster.directory}/containerd.toml", "-l", "warn"]


def kwok(cluster: Cluster) -> Command:
    """KWOK's built-in stages make nodes and pods Ready at once; it needs none of its CRDs for that."""
    return [
        *program(cluster, "kwok"),
        f"--kubeconfig={cluster.directory}/admin-inside.conf",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-lease-duration-seconds=40",
        f"--node-ip={cluster.node_ip}",
        "--node-port=0",
        "--cidr=10.253.0.0/16",
    ]


def write_node_config(cluster: Cluster, snapshotter: str) -> None:
    directory = cluster.directory
    (directory / "cni").mkdir()
    (directory / "cni" / "10-pods.conflist").write_text(cni_config(cluster))
    (directory / "containerd.toml").write_text(containerd_config(cluster, snapshotter))
    (directory / "kubelet.json").write_text(kubelet_config(cluster))
    (directory / "proxy.json").write_text(proxy_config(cluster))
    (directory / "resolv.conf").write_text(f"nameserver {cluster.dns_ip}\n")


def cni_config(cluster: Cluster) -> str:
    """ptp and not bridge: all traffic between pods is routed, so NetworkPolicy sees it and hairpins work."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": cluster.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    links = {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [links, ports]})


def containerd_config(cluster: Cluster, snapshotter: str) -> str:
    """restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower the score, and every sandbox would fail."""
    return f"""version = 2
root = "{cluster.directory}/containerd"
state = "/run/containerd-{cluster.name}"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{cluster.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cluster.directory}/cni"
"""


def kubelet_config(cluster: Cluster) -> str:
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{cluster.pki}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{cluster.pki}/kubelet-server.crt",
            "tlsPrivateKeyFile": f"{cluster.pki}/kubelet-server.key",
            "containerRuntimeEndpoint": f"unix://{cluster.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cluster.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "protectKernelDefaults": True,
            "clusterDNS": [cluster.dns_ip],
            "clusterDomain": "cluster.local",
            "resolvConf": f"{cluster.directory}/resolv.conf",
            # Images cannot be pulled again, and the disk is the machine's: neither is for the kubelet to tidy.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
            "enforceNodeAllocatable": ["pods"],
            "nodeStatusReportFrequency": "1m",
            "logging": {"verbosity": 1},
        }
    )


def proxy_config(cluster: Cluster) -> str:
    """The conntrack limits are read-only outside the first network namespace; kube-proxy ends when it cannot set them."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": cluster.pod_cidr,
            "clientConnection": {"kubeconfig": f"{cluster.directory}/proxy.conf"},
            "hostnameOverride": cluster.node_name,
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "100ms"},
        }
    )
