"""Two gateways with a thousand streams and two hundred new requests a second while everything around them changes.

Real Envoy, policy and relay, one gateway with TLS; the API server is a fake, and the engine a mock in C that counts what it serves.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from bench.gateway.tools import Heard, Load, MockEngine, run_load
from cryptography import x509
from gateway.certificates import make_certificate
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Config, GatewayPod, until

SECRET = "gateway-tls"
PROMPT_TOKENS, PLAIN_TOKENS = 11, 9
"""What the mock says of each answer."""


@dataclass(frozen=True)
class Size:
    """Of a storm; streams and calls a second are those of each of the two gateways."""

    streams: int
    chunks: int
    """One a second: the streams outlast the storm."""
    rate: int
    seconds: int
    kills: int


SMALL = Size(streams=60, chunks=12, rate=25, seconds=5, kills=2)
WHOLE = Size(streams=500, chunks=30, rate=100, seconds=18, kills=5)


class Tunnel:
    """TLS for a load generator that speaks none: what comes in here goes out encrypted, each connection by itself."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listening = asyncio.start_server(self._carry, "127.0.0.1", 0, backlog=2000)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to, ssl=self._context)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        carried = asyncio.all_tasks() - {asyncio.current_task()}
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@dataclass
class Side:
    """One gateway, and whatever it hears from the API server."""

    pod: GatewayPod
    kubernetes: FakeKubernetes
    config: Config
    secure: bool

    def status(self, key: str) -> int:
        if not self.secure:
            return self.pod.request("GET", "/v1/models", key=key).status
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self.pod.port, timeout=30, context=context)
        try:
            connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {key}"})
            return connection.getresponse().status
        finally:
            connection.close()

    def log(self) -> list[dict[str, object]]:
        """Lines of requests that an engine has served."""
        return [line for line in self.pod.access_log() if line.get("reason") == "allowed"]


@pytest.fixture
def engine() -> Iterator[MockEngine]:
    engine = MockEngine(ports=4)
    yield engine
    engine.stop()


@pytest.fixture
def sides(tmp_path: Path, engine: MockEngine) -> Iterator[list[Side]]:
    made = []
    for number, secure in enumerate((False, True)):
        kubernetes, config = FakeKubernetes(), Config().model("chat").key("alice", "sk-alice")
        folder = tmp_path / str(number)
        folder.mkdir()
        made.append(Side(GatewayPod(folder, kubernetes, workers=1), kubernetes, config, secure))
        if secure:
            config.more = {"tls": SECRET}
            put_certificate(made[-1], "certificate-0")
        config.apply(kubernetes)
        kubernetes.put_endpoints(NAMESPACE, "chat", engine.ports[:2])
    try:
        for side in made:
            side.pod.start()
        yield made
    finally:
        for side in made:
            side.pod.stop()
            side.kubernetes.close()


def put_certificate(side: Side, name: str) -> None:
    chain, key = make_certificate(name)
    side.kubernetes.put_files(NAMESPACE, SECRET, {"tls.crt": chain, "tls.key": key})


def name_shown(side: Side) -> str:
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", side.pod.port)))
    return x509.load_der_x509_certificate(shown).subject.rfc4514_string().removeprefix("CN=")


def change_endpoints(sides: list[Side], engine: MockEngine, number: int) -> None:
    """Each second one goes (it ends what it has) and another comes; two of four are there at any time."""
    here = [engine.ports[number % 4], engine.ports[(number + 1) % 4]]
    gone = [port for port in engine.ports if port not in here]
    for side in sides:
        side.kubernetes.put_endpoints(NAMESPACE, "chat", here, terminating=gone[:1])


def change_keys(sides: list[Side], number: int) -> None:
    """A new key is let in, and the one before it is not any more."""
    for side in sides:
        del side.config.keys[1:]
        side.config.key(f"key-{number}", f"sk-key-{number}")
        side.config.apply(side.kubernetes)
    for side in sides:
        until(lambda side=side: side.status(f"sk-key-{number}") == 200, f"key {number} is let in")
        if number:
            until(lambda side=side: side.status(f"sk-key-{number - 1}") == 401, f"key {number - 1} is refused")


def storm(sides: list[Side], engine: MockEngine, size: Size) -> None:
    secure = sides[1]
    until_then = time.monotonic() + size.seconds
    kills = 0
    for number in count():
        began = time.monotonic()
        if began > until_then and kills == size.kills:
            break
        change_endpoints(sides, engine, number)
        change_keys(sides, number)
        if number % 3 == 2:
            put_certificate(secure, f"certificate-{number}")
            until(lambda number=number: name_shown(secure) == f"certificate-{number}", "the new certificate")
        if number % 2 == 0 and kills < size.kills:
            victim = sides[kills % 2].pod
            killed = victim.kill("policy")
            until(lambda victim=victim, killed=killed: victim.child("policy") not in (0, killed), "the next policy")
            kills += 1
        time.sleep(max(0.0, began + 1 - time.monotonic()))


@pytest.mark.parametrize("size", [SMALL, pytest.param(WHOLE, marks=pytest.mark.slow)], ids=["small", "whole"])
@pytest.mark.timeout(400)
def test_nothing_is_cut_or_answered_wrongly_while_everything_around_changes(
    sides: list[Side], engine: MockEngine, size: Size
) -> None:
    plain, secure = sides
    tunnel = Tunnel(secure.pod.port)
    streams = Load(size.streams, 0.5, warmup=0, chunks=size.chunks, gap_us=1_000_000)
    calls = Load(200, size.seconds, rate=size.rate, warmup=0)
    try:
        with ThreadPoolExecutor(4) as pool:
            ports = (plain.pod.port, tunnel.port)
            opened = time.monotonic()
            open_streams = [pool.submit(run_load, port, "sk-alice", ["chat"], streams) for port in ports]
            until(lambda: engine.counts().open >= 2 * size.streams, "all streams are open")
            new_calls = [pool.submit(run_load, port, "sk-alice", ["chat"], calls) for port in ports]
            storm(sides, engine, size)
            heard_calls = [one.result(60) for one in new_calls]
            # The second gateway's pod is deleted while its streams go on: its preStop waits for them.
            # On a slow machine the storm may have outlasted them.
            assert engine.counts().open > size.streams or time.monotonic() > opened + size.chunks - 2
            assert secure.pod.drain().status == 200
            secure.pod.stop()
            heard_streams = [one.result(60) for one in open_streams]
        assert [whole(heard) for heard in heard_streams] == [size.streams, size.streams]
        assert all(whole(heard) >= size.rate * size.seconds * 0.5 for heard in heard_calls)
        answers = sum(heard.good for heard in heard_calls)
        check_sums(sides, engine, sum(heard.good for heard in heard_streams), answers, size.chunks)
    finally:
        tunnel.close()


def whole(heard: Heard) -> int:
    """Good answers, if there were no others."""
    assert (heard.bad, heard.unfinished) == (0, 0), heard
    return heard.good


def check_sums(sides: list[Side], engine: MockEngine, streams: int, calls: int, chunks: int) -> None:
    """Clients, engine and the gateways' logs agree, to the token."""
    served = engine.counts()
    assert (served.finished, served.aborted, served.open) == (streams + calls, 0, 0)
    lines = until(
        lambda: (got := [line for side in sides for line in side.log()])[streams + calls - 1 :] and got, "all lines"
    )
    assert len(lines) == streams + calls
    assert {line["code"] for line in lines} == {200}
    assert sum(int(str(line["prompt"])) for line in lines) == PROMPT_TOKENS * (streams + calls)
    assert sum(int(str(line["completion"])) for line in lines) == streams * chunks + calls * PLAIN_TOKENS
    assert served.chunks == streams * chunks
