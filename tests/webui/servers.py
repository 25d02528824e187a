"""What several replicas share, Debian's, on free ports; and the Service in front of them."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import shutil
import subprocess
import threading
from pathlib import Path

from gateway.pod import until
from imagebuild.inputs import require_packages
from kindless.preflight import install_missing_packages
from ports import free_port


class Postgres:
    """Not as root, who may not run it."""

    def __init__(self, folder: Path) -> None:
        if not glob.glob("/usr/lib/postgresql/*/bin/postgres"):
            problem = install_missing_packages(["postgresql"])
            assert not problem, problem
        programs = Path(max(glob.glob("/usr/lib/postgresql/*/bin")))
        # pytest's own folder is closed to other users.
        self._data = Path("/tmp") / f"stoker-webui-postgres-{os.getpid()}"
        self._data.mkdir(mode=0o700)
        as_nobody = []
        if os.geteuid() == 0:
            as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            os.chown(self._data, 65534, 65534)
        make = [*as_nobody, programs / "initdb", "-D", self._data, "-A", "trust", "-U", "chat", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, env={"LANG": "C.UTF-8", "PATH": os.environ["PATH"]})
        self.port = free_port()
        run = [
            *as_nobody,
            programs / "postgres",
            "-D",
            self._data,
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
            "-k",
            self._data,
            "-F",
        ]
        with (folder / "postgres.log").open("wb") as log:
            self._process = subprocess.Popen(run, stdout=log, stderr=log)
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        until(lambda: subprocess.run(ready).returncode == 0, "PostgreSQL", within=30)
        self.url = f"postgresql://chat@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self._data)


class Redis:
    def __init__(self, folder: Path) -> None:
        require_packages({"redis-server": "redis-server"})
        self.port = free_port()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        ping = ["redis-cli", "-p", str(self.port), "ping"]
        until(lambda: subprocess.run(ping, capture_output=True).stdout == b"PONG\n", "Redis", within=20)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


class RoundRobin:
    """One connection to this replica, the next to that, as kube-proxy does; one that is gone is passed over."""

    def __init__(self, port: int, backends: list[int]) -> None:
        self.port, self.served = port, dict.fromkeys(backends, 0)
        self._loop, self._stopping = asyncio.new_event_loop(), asyncio.Event()
        started = threading.Event()

        async def listen() -> None:
            async with await asyncio.start_server(self._serve, "127.0.0.1", port):
                started.set()
                await self._stopping.wait()

        def run() -> None:
            self._loop.run_until_complete(listen())
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0.1))
            self._loop.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for backend in sorted(self.served, key=lambda port: self.served[port]):
            self.served[backend] += 1
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", backend)
                await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
                return
        writer.close()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
