"""Ends processes of a container with a signal, as a crash does: PID 1 of a container cannot be killed from inside."""

from __future__ import annotations

from collections.abc import Iterable

from e2e.kube import Kube, until

NAMESPACE = "e2e-killer"
IMAGE = "docker.io/library/busybox:1.37"
# Only processes of these containers whose command line has the word in it.
SCRIPT = """
for p in /proc/[0-9]*; do
  if grep -q "$1" $p/cgroup 2>/dev/null && tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q -e "$2"; then
    kill -9 ${p#/proc/} && echo ${p#/proc/}
  fi
done
"""


class Killer:
    """A pod that sees the node's processes."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "killer", "namespace": NAMESPACE},
                "spec": {
                    "hostPID": True,
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": "killer",
                            "image": IMAGE,
                            "imagePullPolicy": "Never",
                            "command": ["sleep", "7200"],
                            "securityContext": {"privileged": True},
                        }
                    ],
                },
            },
        )
        kube.wait_ready("pod/killer", namespace=NAMESPACE)

    def sigkill(self, namespace: str, pod: str, container: str, command_line: str = "") -> None:
        """SIGKILL the container's processes (those with this in their command line)."""
        container_id = until(
            lambda: self.running(namespace, pod).get(container),
            f"container {container} of {namespace}/{pod} running",
        )
        killed = self.kill([container_id], command_line)
        assert killed, f"no process of {namespace}/{pod} {container} has {command_line!r} in its command line"

    def running(self, namespace: str, pod: str) -> dict[str, str]:
        """A pod's running containers: name and id."""
        status = (self.kube.get("pods", namespace, pod) or {}).get("status", {})
        found = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
        return {one["name"]: str(one["containerID"]).rsplit("/", 1)[1] for one in found if "running" in one["state"]}

    def kill(self, container_ids: Iterable[str], command_line: str = "") -> list[str]:
        """SIGKILL these containers' processes at once, whether or not their pod still has an object; the process ids."""
        words = ("sh", "-c", SCRIPT, "sh", "\\|".join(container_ids), command_line or ".")
        return self.kube.kubectl("exec", "-n", NAMESPACE, "killer", "--", *words).split()
