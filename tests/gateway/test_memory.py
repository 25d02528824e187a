"""Real Envoy that is nearly out of memory, in front of a fake engine."""

from __future__ import annotations

import json

from gateway.conftest import World, first_config
from gateway.pod import NAMESPACE, until


def test_without_memory_left_a_request_is_503_in_openais_shape_and_no_engine_sees_it(own_pod: World) -> None:
    own_pod.kubernetes.put_endpoints(NAMESPACE, "qwen", [own_pod.engines[0].port])
    first_config().apply(own_pod.kubernetes)
    pod = own_pod.pod
    pod.start_policy_container()
    until(lambda: pod.probe("/startup").status == 200, "the files for Envoy")
    # What Envoy needs at rest differs between machines, so the thresholds move and not the heap: it always takes a hundredth.
    bootstrap = json.loads((pod.run / "bootstrap.json").read_text())
    for action in bootstrap["overload_manager"]["actions"]:
        if action["name"].endswith("stop_accepting_requests"):
            action["triggers"][0]["threshold"]["value"] = 0.0001
    (pod.run / "bootstrap.json").write_text(json.dumps(bootstrap))
    pod.start_envoy()
    until(lambda: pod.probe("/readyz").status == 200, "a ready gateway")
    answer = until(lambda: (got := pod.chat()).status == 503 and got, "the overload manager's first look")
    assert answer.error["code"] == "gateway_overloaded"
    assert int(answer.headers["retry-after"]) > 0
    before = own_pod.seen
    assert {pod.chat().status for _ in range(10)} == {503}
    assert own_pod.seen == before
