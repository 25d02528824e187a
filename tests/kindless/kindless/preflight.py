"""What the machine lacks for a whole node, one line for each thing; packages are installed where that is possible."""

import os
import shutil
import subprocess
from pathlib import Path

from .cgroups import is_version_2, missing_controllers
from .errors import KindlessError
from .paths import cache_dir
from .progress import run_with_progress, say

# command: Debian package
COMMANDS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "socat": "socat",
    "unshare": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
}
CNI_PLUGINS = Path("/usr/lib/cni")

# Each line tries in throw-away namespaces what a node will need for real.
TRIALS = {
    "mount a tmpfs": "mount -t tmpfs tmpfs /run",
    "make a veth pair (kernel feature VETH)": "ip link add stkt0 type veth peer name stkt1",
    "load NAT rules (kernel features NF_NAT, NF_TABLES)": "iptables -t nat -S",
    "load nftables rules (kernel feature NF_TABLES)": "nft add table ip stkt",
}
OVERLAY_TRIAL = 'd=$(mktemp -d "$1/overlay.XXXX") && cd "$d" && mkdir l u w m && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m; s=$?; cd /; umount "$d/m" 2>/dev/null; rm -rf "$d"; exit $s'


def check_machine() -> None:
    """Raise with one line for each thing that is missing."""
    if problems := find_problems():
        raise KindlessError("\nERROR: ".join(problems))


def find_problems() -> list[str]:
    if os.geteuid() != 0:
        return ["a node needs root: run as root, use Docker and kind, or create with --control-plane-only"]
    if problem := install_missing_packages(missing_packages()):
        return [problem]
    problems = [f"the cgroup controller '{name}' is not available" for name in missing_controllers()]
    if is_version_2() and not os.access("/sys/fs/cgroup/cgroup.subtree_control", os.W_OK):
        problems.append("cgroup v2 is mounted read-only: use a privileged container or Docker")
    namespaces = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc"]
    if detail := failure([*namespaces, "true"]):
        return [*problems, f"cannot make namespaces (CAP_SYS_ADMIN): {detail}"]
    for what, command in TRIALS.items():
        if detail := failure([*namespaces, "sh", "-c", command]):
            problems.append(f"cannot {what}: {detail}")
    return problems


def missing_packages() -> list[str]:
    packages = [package for command, package in COMMANDS.items() if not shutil.which(command)]
    if not (CNI_PLUGINS / "ptp").exists():
        packages.append("containernetworking-plugins")
    return sorted(set(packages))


def install_missing_packages(packages: list[str]) -> str | None:
    """Install Debian packages; a text says why they could not be."""
    if not packages:
        return None
    wanted = " ".join(packages)
    if not shutil.which("apt-get"):
        return f"missing packages, and there is no apt-get to install them: {wanted}"
    if os.geteuid() != 0:
        return f"missing packages: run as root: apt-get install {wanted}"
    say(f"Installing Debian packages: {wanted}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    try:
        if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
            run_with_progress(["apt-get", "update", "--quiet"], "apt-get update", env=quiet)
        try:
            run_with_progress(install, "apt-get install", env=quiet)
        except KindlessError:  # the lists may be older than what the mirror still has
            run_with_progress(["apt-get", "update", "--quiet"], "apt-get update", env=quiet)
            run_with_progress(install, "apt-get install", env=quiet)
    except KindlessError as error:
        return f"cannot install {wanted}: {error}"
    return None


def failure(command: list[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def overlay_works(directory: Path | None = None) -> bool:
    """Tried where it will be used: an overlay on an overlay, say in a container, is refused."""
    place = directory or cache_dir()
    place.mkdir(parents=True, exist_ok=True)
    return failure(["unshare", "--mount", "sh", "-c", OVERLAY_TRIAL, "sh", str(place)]) is None
