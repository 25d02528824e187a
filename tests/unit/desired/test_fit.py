from __future__ import annotations

from typing import Any

import pytest

from stoker.api.inspection import ModelStatus
from stoker.api.observed import ObservedNode
from stoker.api.resolved import ResolvedModelDeployment
from stoker.desired.chosen import describe_update
from stoker.desired.engine_pod import build_pod_template
from stoker.desired.fit import check_fit, startup_deadline
from stoker.errors import Stalled
from stoker.models.source import parse_source

GIB = 1 << 30


@pytest.fixture
def described(make_model):
    """Llama 3.1 8B in Q4_K_M, as a pod has read it: 4.6 GiB, 128 KiB for a token."""

    def make(source: str = "", **more: Any) -> ModelStatus:
        return ModelStatus.model_validate(
            {
                "source": source or parse_source(make_model().spec.source).digest,
                "architecture": "llama",
                "weightsBytes": 4_920_734_720,
                "layers": 32,
                "embeddingLength": 4096,
                "feedForwardLength": 14336,
                "contextLength": 131_072,
                "vocabularySize": 128_256,
                "kvCache": [{"layers": 32, "keyWidth": 1024, "valueWidth": 1024}],
                **more,
            }
        )

    return make


@pytest.fixture
def gpu(make_engine):
    return make_engine(accelerator={"vendor": "NVIDIA", "memory": "16Gi"})


def arguments(resolved: ResolvedModelDeployment, settings: Any) -> str:
    return " ".join(build_pod_template(resolved, settings)["spec"]["containers"][0]["args"])


def test_nothing_is_known_before_a_pod_has_read_the_header(resolve, make_model, gpu) -> None:
    resolved = resolve(make_model(), gpu)
    assert (resolved.model, resolved.fit, resolved.misfit) == (None, None, "")
    check_fit(resolved)


def test_the_bill_stands_beside_the_memory_of_all_devices(resolve, make_model, gpu, described) -> None:
    fit = resolve(make_model(contextLength=8192, gpus=2), gpu, reported=[described()]).fit
    assert (fit.available_bytes, fit.kv_bytes, fit.weights_bytes) == (32 * GIB, 4 * GIB, 4_920_734_720)
    assert fit.required_bytes == fit.weights_bytes + fit.kv_bytes + fit.overhead_bytes
    assert (fit.context_length, fit.slots) == (8192, 4)


def test_on_the_cpu_the_containers_limit_is_what_there_is(resolve, make_model, make_engine, described) -> None:
    engine = make_engine(resources={"limits": {"memory": "16Gi"}})
    fit = resolve(make_model(contextLength=4096), engine, reported=[described()]).fit
    assert fit.available_bytes == 16 * GIB
    # An eighth of the limit is for finished prompts.
    assert fit.overhead_bytes > 2 * GIB
    assert resolve(make_model(contextLength=4096), make_engine(), reported=[described()]).fit.available_bytes is None


def test_what_does_not_fit_is_refused_with_numbers_that_do(resolve, make_model, gpu, described) -> None:
    resolved = resolve(make_model(contextLength=131_072), gpu, reported=[described()])
    with pytest.raises(
        Stalled, match=r"ModelDeployment smol does not fit InferenceEngine llama: it needs 69\.4 GiB"
    ) as caught:
        check_fit(resolved)
    assert "spec.contextLength to at most 2" in caught.value.message
    assert "maxConcurrentRequests" not in caught.value.message
    assert resolved.chosen.context_length == 131_072


@pytest.mark.parametrize("spec", [{"fitPolicy": "Warn"}, {"fitPolicy": "Ignore"}, {"replicas": 0}])
def test_a_misfit_is_told_but_not_refused_where_it_does_no_harm(resolve, make_model, gpu, described, spec) -> None:
    resolved = resolve(make_model(contextLength=131_072, **spec), gpu, reported=[described()])
    assert resolved.misfit
    check_fit(resolved)


def test_without_a_context_the_largest_that_fits_is_taken(resolve, make_model, gpu, described, settings) -> None:
    resolved = resolve(make_model(), gpu, reported=[described()])
    chosen = resolved.chosen.context_length
    assert chosen is not None
    assert chosen % 256 == 0
    assert 20_000 < chosen < 23_000
    assert resolved.misfit == ""
    assert f"--ctx-size {4 * chosen} --no-kv-unified" in arguments(resolved, settings)
    one_more = resolve(make_model(contextLength=chosen + 256), gpu, reported=[described()])
    assert one_more.misfit


def test_a_trained_length_that_fits_is_left_alone(resolve, make_model, make_engine, described) -> None:
    resolved = resolve(
        make_model(), make_engine(accelerator={"vendor": "NVIDIA", "memory": "80Gi"}), reported=[described()]
    )
    assert (resolved.chosen.context_length, resolved.misfit) == (None, "")


def test_no_context_is_chosen_where_the_user_has_one_in_args(resolve, make_model, gpu, described) -> None:
    resolved = resolve(make_model(args=["-c", "1000000"]), gpu, reported=[described()])
    assert resolved.chosen.context_length is None
    assert resolved.misfit


def test_what_was_chosen_is_kept_and_is_no_update(resolve, make_model, gpu, described, settings) -> None:
    first = resolve(make_model(), gpu, reported=[described()])
    again = resolve(make_model(), gpu, previous=first.chosen)
    assert again.chosen == first.chosen
    source = parse_source(make_model().spec.source)
    assert describe_update(again.chosen, make_model(), gpu, source, settings) is None


def test_more_memory_gives_more_context(resolve, make_model, make_engine, gpu, described) -> None:
    first = resolve(make_model(), gpu, reported=[described()])
    bigger = make_engine(accelerator={"vendor": "NVIDIA", "memory": "20Gi"})
    again = resolve(make_model(), bigger, previous=first.chosen, reported=[described()])
    assert again.chosen.context_length > first.chosen.context_length


def test_a_model_that_serves_is_not_restarted_for_what_is_learned_of_it(resolve, make_model, gpu, described) -> None:
    first = resolve(make_model(), gpu)
    learned = resolve(make_model(), gpu, previous=first.chosen, reported=[described()], serving=True)
    assert learned.chosen == first.chosen
    assert learned.misfit


def test_status_remembers_what_pods_have_read(resolve, make_model, gpu, described) -> None:
    model = make_model()
    remembering = model.model_copy(update={"status": model.status.model_copy(update={"model": described(name="old")})})
    assert resolve(remembering, gpu).model == described(name="old")
    assert resolve(remembering, gpu, reported=[described(name="new")]).model == described(name="new")


def test_what_was_read_from_another_source_does_not_count(resolve, make_model, gpu, described) -> None:
    other = described(source="0123456789abcdef")
    model = make_model()
    remembering = model.model_copy(update={"status": model.status.model_copy(update={"model": other})})
    assert resolve(remembering, gpu, reported=[other]).model is None


def test_choosing_anew_on_request_reads_the_header_again(resolve, make_model, gpu, described) -> None:
    first = resolve(make_model(), gpu, reported=[described()])
    model = make_model(metadata={"annotations": {"stoker.dev/refresh": "now"}})
    remembering = model.model_copy(update={"status": model.status.model_copy(update={"model": described()})})
    assert resolve(remembering, gpu, previous=first.chosen).model is None


def test_the_downloader_gets_the_same_question(resolve, make_model, gpu, settings) -> None:
    containers = build_pod_template(resolve(make_model(contextLength=4096, fitPolicy="Warn"), gpu), settings)["spec"]
    order = next(c for c in containers["initContainers"] if c["name"] == "fetch")["env"][0]["value"]
    assert (
        '"fit":{"availableBytes":17179869184,"contextLength":4096,"devices":1,"engine":"LlamaCpp","slots":4}' in order
    )
    assert '"fitPolicy":"Warn"' in order


def test_the_template_does_not_change_when_a_fitting_model_becomes_known(
    resolve, make_model, gpu, described, settings
) -> None:
    model = make_model(contextLength=4096)
    before, after = resolve(model, gpu), resolve(model, gpu, reported=[described()])
    assert build_pod_template(before, settings) == build_pod_template(after, settings)


def test_the_startup_deadline_grows_with_the_weights(resolve, make_model, make_engine, described, settings) -> None:
    assert startup_deadline(int(4.6 * GIB)) == 400
    large = described(weightsBytes=40 * GIB)
    roomy = {"vendor": "NVIDIA", "memory": "80Gi"}
    resolved = resolve(make_model(contextLength=4096), make_engine(accelerator=roomy), reported=[large])
    assert resolved.chosen.startup_deadline_seconds == 1100
    source = parse_source(make_model().spec.source)
    assert describe_update(resolved.chosen, resolved.deployment, resolved.engine, source, settings) is None
    said = make_engine(accelerator=roomy, startupDeadlineSeconds=60)
    assert resolve(make_model(contextLength=4096), said, reported=[large]).chosen.startup_deadline_seconds == 60
    small = resolve(make_model(contextLength=4096), make_engine(accelerator=roomy), reported=[described()])
    assert small.chosen.startup_deadline_seconds == 600


OLLAMA = {"type": "Ollama", "accelerator": {"vendor": "NVIDIA", "memory": "16Gi"}}


def test_an_engine_that_must_be_told_its_context_gets_the_largest_that_fits(
    resolve, make_model, make_engine, described, settings
) -> None:
    before = resolve(make_model(), make_engine(**OLLAMA))
    fetch = build_pod_template(before, settings)["spec"]["initContainers"][1]
    assert '"hold":true' in fetch["env"][0]["value"]
    after = resolve(make_model(), make_engine(**OLLAMA), reported=[described()])
    chosen = after.chosen.context_length
    assert chosen is not None
    assert 20_000 < chosen < 23_000
    spec = build_pod_template(after, settings)["spec"]
    assert "hold" not in spec["initContainers"][1]["env"][0]["value"]
    assert {"name": "OLLAMA_CONTEXT_LENGTH", "value": str(chosen)} in spec["containers"][0]["env"]
    roomy = make_engine(type="Ollama", accelerator={"vendor": "NVIDIA", "memory": "80Gi"})
    assert resolve(make_model(), roomy, reported=[described()]).chosen.context_length == 131_072


@pytest.mark.parametrize(
    ("engine", "model"),
    [
        ({"accelerator": {"vendor": "NVIDIA"}}, {}),
        ({"accelerator": {"vendor": "None"}}, {}),
        ({}, {"fitPolicy": "Ignore"}),
        ({}, {"source": {"uri": "ollama://qwen3"}}),
    ],
)
def test_a_context_that_nobody_can_choose_has_to_be_said(resolve, make_model, make_engine, engine, model) -> None:
    with pytest.raises(Stalled, match=r"FieldRequired: ModelDeployment smol needs spec\.contextLength"):
        resolve(make_model(**model), make_engine(**{**OLLAMA, **engine}))


def test_with_a_warning_only_it_is_started_with_a_short_context(resolve, make_model, make_engine, described) -> None:
    small = make_engine(type="Ollama", accelerator={"vendor": "NVIDIA", "memory": "4Gi"})
    resolved = resolve(make_model(fitPolicy="Warn"), small, reported=[described()])
    assert resolved.chosen.context_length == 1024
    assert resolved.misfit


VLLM = {"type": "VLLM", "accelerator": {"vendor": "NVIDIA", "memory": "24Gi"}}
REPOSITORY = {"source": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}}


def test_a_repository_is_judged_by_what_a_pod_has_read_of_it(resolve, make_model, make_engine, described) -> None:
    model = make_model(**REPOSITORY, contextLength=131_072)
    whole = described(source=parse_source(model.spec.source).identity, weightsBytes=16_060_522_496)
    resolved = resolve(model, make_engine(**VLLM), reported=[whole])
    assert "cache for one request of 131072 tokens 16.0 GiB" in resolved.misfit
    shorter = resolve(make_model(**REPOSITORY, contextLength=32_768), make_engine(**VLLM), reported=[whole])
    assert shorter.misfit == ""
    eight = resolve(
        make_model(**REPOSITORY, contextLength=131_072, kvCacheType="FP8"), make_engine(**VLLM), reported=[whole]
    )
    assert eight.fit.kv_bytes == 8 * GIB


def test_vllm_is_left_to_take_the_largest_context_itself(resolve, make_model, make_engine, described, settings) -> None:
    model = make_model(**REPOSITORY)
    whole = described(source=parse_source(model.spec.source).identity, weightsBytes=16_060_522_496)
    resolved = resolve(model, make_engine(**VLLM), reported=[whole])
    assert (resolved.chosen.context_length, resolved.misfit) == (None, "")
    assert 20_000 < resolved.fit.context_length < 60_000
    assert "--max-model-len auto" in arguments(resolved, settings)
    hopeless = make_engine(type="VLLM", accelerator={"vendor": "NVIDIA", "memory": "16Gi"})
    assert "weights 15.0 GiB" in resolve(model, hopeless, reported=[whole]).misfit


def test_a_misfit_names_the_node_whose_memory_it_is(resolve, make_model, make_engine, described) -> None:
    small = ObservedNode("small", {"nvidia.com/gpu.memory": "4096"}, {"nvidia.com/gpu": "1", "memory": "2Gi"})
    engine = make_engine(accelerator={"vendor": "NVIDIA"})
    resolved = resolve(make_model(contextLength=8192), engine, reported=[described()], nodes=[small])
    assert resolved.fit.available_bytes == 4 * GIB
    assert "small has the smallest devices: nodeSelector leaves nodes out" in resolved.misfit
    on_cpu = resolve(make_model(contextLength=8192), make_engine(), reported=[described()], nodes=[small])
    assert "and there are 2.00 GiB" in on_cpu.misfit
    assert on_cpu.misfit.endswith("small is the largest node that it may run on")


def test_an_embedding_model_that_does_not_say_how_it_pools_is_refused(
    resolve, make_model, make_engine, described
) -> None:
    embedding = {"task": "Embedding", "contextLength": 512}
    with pytest.raises(Stalled, match=r"PoolingUnknown: .* set spec\.args to \[--pooling, mean\]"):
        check_fit(resolve(make_model(**embedding), make_engine(), reported=[described()]))
    for accepted in (
        resolve(make_model(**embedding), make_engine(), reported=[described(pooling="mean")]),
        resolve(make_model(**embedding, args=["--pooling=mean"]), make_engine(), reported=[described()]),
        resolve(
            make_model(**embedding),
            make_engine(env=[{"name": "LLAMA_ARG_POOLING", "value": "mean"}]),
            reported=[described()],
        ),
        resolve(make_model(**embedding, fitPolicy="Warn"), make_engine(), reported=[described()]),
        resolve(make_model(contextLength=512), make_engine(), reported=[described()]),
    ):
        check_fit(accepted)
