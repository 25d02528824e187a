from __future__ import annotations

from typing import Any

import pytest

from stoker.api import ApiGateway
from stoker.api.api_gateway import ApiGatewayStatus
from stoker.api.observed import ObservedWorkload
from stoker.errors import Stalled, Waiting
from stoker.status.api_gateway import compute_api_gateway_status
from stoker.status.web_ui import ObservedWebUI


@pytest.fixture
def compute(metadata, workload, pod, container, now):
    serving = pod(container("envoy", ready=True, started=True), ready=True)

    def make(seen: ObservedWorkload, *, service=None, weakened=(), problem=None, **ui: Any) -> ApiGatewayStatus:
        gateway = ApiGateway.model_validate({"metadata": metadata("gateway"), "spec": {"replicas": 1, "webUI": ui}})
        assert gateway.spec.web_ui is not None
        return compute_api_gateway_status(
            gateway,
            workload=workload(serving),
            models=0,
            ready_models=0,
            sleeping_models=0,
            keys=0,
            service=None,
            admin_secret_name=None,
            web_ui=ObservedWebUI(gateway.spec.web_ui, seen, service, weakened, problem),
            problem=None,
            now=now,
        )

    return make


@pytest.fixture
def chatting(workload, pod, container):
    return workload(pod(container("open-webui", ready=True, started=True), ready=True))


def conditions(status: ApiGatewayStatus) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def message(status: ApiGatewayStatus, type_: str) -> str:
    return next(condition.message for condition in status.conditions if condition.type == type_)


def test_a_web_chat_that_serves_says_where_and_how_to_get_in(compute, chatting) -> None:
    status = compute(chatting)
    assert conditions(status) == {
        "Ready": ("True", "Serving"),
        "Programmed": ("True", "Programmed"),
        "WebUIReady": ("True", "Serving"),
        "WebUISecure": ("True", "Guarded"),
    }
    assert status.web_ui_url == "http://gateway-webui.team.svc"
    assert status.web_ui_admin_secret_name == "gateway-webui-admin"
    dumped = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert dumped["webUIUrl"] == "http://gateway-webui.team.svc"
    assert dumped["webUIAdminSecretName"] == "gateway-webui-admin"


def test_the_address_is_the_one_that_browsers_are_told(compute, chatting) -> None:
    assert compute(chatting, url="https://chat.example.com").web_ui_url == "https://chat.example.com"


def test_a_load_balancer_without_an_address_is_waited_for(compute, chatting) -> None:
    status = compute(chatting, expose={"type": "LoadBalancer"})
    assert conditions(status)["WebUIReady"] == ("False", "AddressPending")
    service = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}
    assert compute(chatting, service=service, expose={"type": "LoadBalancer"}).web_ui_url == "http://192.0.2.7"


def test_the_gateway_is_ready_while_its_web_chat_starts(compute) -> None:
    status = compute(ObservedWorkload(None))
    assert conditions(status)["Ready"] == ("True", "Serving")
    assert conditions(status)["WebUIReady"] == ("False", "WebUIStarting")
    assert conditions(status)["Reconciling"] == ("True", "WebUIStarting")
    assert "StatefulSet gateway-webui" in message(status, "WebUIReady")


def test_what_is_wrong_with_the_web_chat_is_said_of_it_and_not_of_the_gateway(compute, chatting) -> None:
    status = compute(chatting, problem=Stalled("SecretNotFound", "no Secret pg"))
    assert conditions(status)["Ready"] == ("True", "Serving")
    assert conditions(status)["Stalled"] == ("True", "SecretNotFound")
    # The pods that are there go on.
    assert conditions(status)["WebUIReady"] == ("True", "Serving")
    status = compute(ObservedWorkload(None), problem=Waiting("WebUIStarting", "its key is being made"))
    assert message(status, "WebUIReady") == "its key is being made"


def test_a_crash_tells_the_last_words_and_where_the_log_is(compute, workload, pod, container) -> None:
    fallen = container("open-webui", state="terminated", exit_code=1, message="could not connect to server", restarts=2)
    status = compute(workload(pod(fallen)))
    assert conditions(status)["Stalled"] == ("True", "WebUICrashed")
    assert "could not connect to server" in message(status, "WebUIReady")
    assert "kubectl logs statefulset/gateway-webui" in message(status, "WebUIReady")


def test_a_stopped_web_chat_is_as_asked_for(compute, workload) -> None:
    status = compute(workload(), replicas=0)
    assert conditions(status)["WebUIReady"] == ("True", "Stopped")
    assert "Reconciling" not in conditions(status)


def test_a_guard_that_is_taken_away_is_named(compute, chatting) -> None:
    status = compute(chatting, weakened=("ENABLE_SIGNUP",))
    assert conditions(status)["WebUISecure"] == ("False", "GuardOverridden")
    assert "ENABLE_SIGNUP" in message(status, "WebUISecure")
    assert "Stalled" not in conditions(status), "it is the user's choice"
