"""The agent beside every engine of the table: what the operator writes about it, against a fake that answers as its documentation says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from unit.agent.fake_engines import FAKES, FakeEngine, row_of

from stoker.agent.config import parse_config
from stoker.agent.connections import count_connections
from stoker.agent.engine import EngineClient, Sample
from stoker.agent.metrics import build_registry, render
from stoker.agent.watch import EngineWatch
from stoker.engines import ENGINES

COUNTING = ["VLLM", "Aphrodite", "SGLang"]


@pytest.fixture
async def fake(request: pytest.FixtureRequest) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(FAKES[request.param])
    await engine.start()
    yield engine
    await engine.stop()


async def sample_of(kind: str, fake: FakeEngine) -> Sample:
    return await EngineClient(parse_config(row_of(ENGINES[kind], fake.port))).read_sample()  # type: ignore[index]


@pytest.mark.parametrize(("fake", "kind"), [(kind, kind) for kind in FAKES], indirect=["fake"])
async def test_ready_means_that_the_model_is_loaded_with_a_fake_of_each_engine(fake: FakeEngine, kind: str) -> None:
    assert (await sample_of(kind, fake)).loaded is True
    fake.state.loaded = False
    without = await sample_of(kind, fake)
    assert (without.up, without.loaded) == (True, False)
    await fake.stop()
    gone = await sample_of(kind, fake)
    assert (gone.listening, gone.loaded) == (False, False)


@pytest.mark.parametrize(("fake", "kind"), [("Ollama", "Ollama"), ("LMStudio", "LMStudio")], indirect=["fake"])
async def test_another_model_is_not_this_one_with_a_fake(fake: FakeEngine, kind: str) -> None:
    fake.state.model = "another"
    assert (await sample_of(kind, fake)).loaded is False


@pytest.mark.parametrize(("fake", "kind"), [(kind, kind) for kind in COUNTING], indirect=["fake"])
async def test_engines_that_count_are_read_under_one_set_of_names_with_a_fake(fake: FakeEngine, kind: str) -> None:
    fake.state.running, fake.state.waiting = 4, 2
    sample = await sample_of(kind, fake)
    assert (sample.running, sample.waiting, sample.prompt_tokens, sample.completion_tokens) == (4, 2, 120, 4567)
    assert sample.kv_cache_used in (0.25, 0.5)
    assert sample.connections is None
    assert not sample.idle


@pytest.mark.parametrize(("fake", "kind"), [("VLLM", "VLLM"), ("Aphrodite", "Aphrodite")], indirect=["fake"])
async def test_histograms_are_passed_on_with_their_buckets_with_a_fake(fake: FakeEngine, kind: str) -> None:
    sample = await sample_of(kind, fake)
    watch = EngineWatch(lambda: asyncio.sleep(0, sample), 1, 1)
    watch._sample = sample
    text = render(build_registry(watch, "smollm2", kind)).decode()
    labels = f'engine="{kind}"'
    assert f'stoker_engine_time_to_first_token_seconds_bucket{{{labels},le="0.1",model="smollm2"}} 3.0' in text
    assert f'stoker_engine_time_to_first_token_seconds_bucket{{{labels},le="+Inf",model="smollm2"}} 9.0' in text
    assert f'stoker_engine_time_to_first_token_seconds_sum{{{labels},model="smollm2"}} 4.5' in text
    assert f'stoker_engine_inter_token_latency_seconds_count{{{labels},model="smollm2"}} 60.0' in text
    assert f'stoker_engine_kv_cache_used_ratio{{{labels},model="smollm2"}} 0.25' in text


@pytest.mark.parametrize(("fake", "kind"), [(kind, kind) for kind in FAKES if kind not in COUNTING], indirect=["fake"])
async def test_an_engine_that_does_not_count_is_idle_when_nobody_is_connected_with_a_fake(
    fake: FakeEngine, kind: str
) -> None:
    config = parse_config(row_of(ENGINES[kind], fake.port))  # type: ignore[index]
    watch = EngineWatch(EngineClient(config).read_sample, config.interval_seconds, config.timeout_seconds)
    running = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(60):
            assert await watch.drain(15) == "Idle"
    finally:
        running.cancel()
    assert watch.sample is not None
    assert (watch.sample.running, watch.sample.waiting, watch.sample.connections) == (None, None, 0)


# Local and remote address as /proc/net/tcp has them: port 8080 is 1F90, state 01 is an open connection, 0A a listener.
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
FROM_POD = "   1: 0501A8C0:1F90 0601A8C0:9C40 01 00000000:00000000 00:00000000 00000000 65532 0 1 1\n"
FROM_AGENT = "   2: 0100007F:1F90 0100007F:9C41 01 00000000:00000000 00:00000000 00000000 65532 0 1 1\n"
CLOSED = "   3: 0501A8C0:1F90 0601A8C0:9C42 06 00000000:00000000 00:00000000 00000000 65532 0 1 1\n"
LISTENER = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532 0 1 1\n"
OTHER_PORT = "   4: 0501A8C0:238C 0601A8C0:9C43 01 00000000:00000000 00:00000000 00000000 65532 0 1 1\n"
MAPPED = "   5: 0000000000000000FFFF00000501A8C0:1F90 0000000000000000FFFF00000601A8C0:9C44 01 0 0 0 0 0 0\n"
MAPPED_AGENT = "   6: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:9C45 01 0 0 0 0 0 0\n"


def test_only_open_connections_of_others_to_the_engine_count(tmp_path: Path) -> None:
    four, six = tmp_path / "tcp", tmp_path / "tcp6"
    four.write_text(HEAD + LISTENER + FROM_POD + FROM_AGENT + CLOSED + OTHER_PORT)
    six.write_text(HEAD + MAPPED + MAPPED_AGENT)
    assert count_connections(8080, (four, six)) == 2
    assert count_connections(8080, (four, tmp_path / "none")) == 1
    assert count_connections(8080, (tmp_path / "none", six)) is None
