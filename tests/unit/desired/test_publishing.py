from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.api.resolved import OperatorSettings
from stoker.desired.publishing import check_deployment, check_gateway, published_models, publishes
from stoker.errors import Stalled

NAMESPACES = {"team": {"tier": "gold"}, "other": {"tier": "silver"}}


def created(day: int, **more: object) -> dict[str, object]:
    return {"creationTimestamp": f"2026-01-{day:02}T00:00:00Z", **more}


def names(published) -> list[str]:
    return [model.deployment.metadata.name for model in published]


def test_a_gateway_publishes_the_models_of_its_namespace(make_gateway, make_model) -> None:
    assert publishes(make_gateway(), make_model(), NAMESPACES)
    assert not publishes(make_gateway(), make_model(metadata={"namespace": "other"}), NAMESPACES)


@pytest.mark.parametrize(
    ("gateway_side", "model_side", "expected"),
    [("Same", "Same", False), ("All", "Same", False), ("Same", "All", False), ("All", "All", True)],
)
def test_across_namespaces_both_sides_must_agree(make_gateway, make_model, gateway_side, model_side, expected) -> None:
    gateway = make_gateway(models={"namespaces": {"from": gateway_side}})
    model = make_model(metadata={"namespace": "other"}, gateways={"from": model_side})
    assert publishes(gateway, model, NAMESPACES) is expected


def test_namespaces_can_be_chosen_by_labels(make_gateway, make_model) -> None:
    silver = {"from": "Selector", "selector": {"matchLabels": {"tier": "silver"}}}
    gateway = make_gateway(models={"namespaces": silver})
    assert publishes(gateway, make_model(metadata={"namespace": "other"}, gateways={"from": "All"}), NAMESPACES)
    assert not publishes(gateway, make_model(gateways={"from": "All"}), NAMESPACES)


def test_models_can_be_chosen_by_labels(make_gateway, make_model) -> None:
    gateway = make_gateway(models={"selector": {"matchLabels": {"public": "yes"}}})
    assert publishes(gateway, make_model(metadata={"labels": {"public": "yes"}}), NAMESPACES)
    assert not publishes(gateway, make_model(), NAMESPACES)


def test_a_model_that_is_being_deleted_is_not_published(make_gateway, make_model) -> None:
    assert not publishes(make_gateway(), make_model(metadata={"deletionTimestamp": "2026-02-01T00:00:00Z"}), NAMESPACES)


def test_published_models_are_in_the_order_of_their_names(make_gateway, make_model) -> None:
    models = [make_model("b"), make_model("a", servedModelName="z"), make_model("c", replicas=0)]
    published, refused = published_models(make_gateway(), models, NAMESPACES)
    assert names(published) == ["b", "c", "a"]
    assert [model.stopped for model in published] == [False, True, False]
    assert refused == {}


def test_the_oldest_keeps_a_name_in_whatever_order_they_are_seen(make_gateway, make_model) -> None:
    old = make_model("old", servedModelName="chat", metadata=created(1))
    new = make_model("new", servedModelName="chat", metadata=created(2))
    for models in ([old, new], [new, old]):
        published, refused = published_models(make_gateway(), models, NAMESPACES)
        assert names(published) == ["old"]
        assert list(refused) == [("team", "new")]
        assert "'chat' for the older ModelDeployment team/old" in refused["team", "new"]
        assert "change spec.servedModelName, spec.aliases or spec.adapters" in refused["team", "new"]


def test_of_two_made_in_the_same_second_the_first_by_name_keeps_it(make_gateway, make_model) -> None:
    models = [make_model(name, servedModelName="chat") for name in ("b", "a")]
    published, refused = published_models(make_gateway(), models, NAMESPACES)
    assert names(published) == ["a"]
    assert list(refused) == [("team", "b")]


def test_aliases_are_names_too(make_gateway, make_model) -> None:
    old = make_model("old", aliases=["gpt-4o"], metadata=created(1))
    by_alias = make_model("other", aliases=["x", "gpt-4o"], metadata=created(2))
    by_name = make_model("third", servedModelName="gpt-4o", metadata=created(3))
    published, refused = published_models(make_gateway(), [old, by_alias, by_name], NAMESPACES)
    assert names(published) == ["old"]
    assert sorted(refused) == [("team", "other"), ("team", "third")]


def test_who_is_refused_takes_no_name_from_others(make_gateway, make_model) -> None:
    old = make_model("old", servedModelName="x", metadata=created(1))
    refused_one = make_model("middle", servedModelName="x", aliases=["y"], metadata=created(2))
    young = make_model("young", servedModelName="y", metadata=created(3))
    published, _ = published_models(make_gateway(), [old, refused_one, young], NAMESPACES)
    assert names(published) == ["old", "young"]


def test_the_same_name_at_different_gateways_is_no_collision(make_gateway, make_model) -> None:
    gold = make_model("a", servedModelName="chat", metadata=created(1, labels={"tier": "gold"}))
    silver = make_model("b", servedModelName="chat", metadata=created(2, labels={"tier": "silver"}))
    for tier, expected in (("gold", "a"), ("silver", "b")):
        gateway = make_gateway(models={"selector": {"matchLabels": {"tier": tier}}})
        published, refused = published_models(gateway, [gold, silver], NAMESPACES)
        assert names(published) == [expected]
        assert refused == {}


@pytest.mark.parametrize("kind", ["All", "Selector"])
def test_other_namespaces_need_a_cluster_wide_installation(
    make_gateway, make_model, settings: OperatorSettings, kind
) -> None:
    selection = {"from": kind, **({"selector": {}} if kind == "Selector" else {})}
    gateway, model = make_gateway(models={"namespaces": selection}), make_model(gateways=selection)
    check_gateway(gateway, settings)
    check_deployment(model, settings)
    namespaced = replace(settings, cluster_scoped=False)
    for check in (lambda: check_gateway(gateway, namespaced), lambda: check_deployment(model, namespaced)):
        with pytest.raises(Stalled) as caught:
            check()
        assert caught.value.reason == "NotPermitted"
        assert "set it to Same" in caught.value.message


def test_a_pod_template_is_refused_where_the_admin_forbids_it(make_gateway, settings: OperatorSettings) -> None:
    gateway = make_gateway(podTemplate={"spec": {}})
    check_gateway(gateway, settings)
    with pytest.raises(Stalled) as caught:
        check_gateway(gateway, replace(settings, allow_pod_template=False))
    assert caught.value.reason == "PodTemplateForbidden"


def test_a_malformed_selector_is_refused(make_gateway, settings: OperatorSettings) -> None:
    with pytest.raises(Stalled, match="InvalidSelector"):
        check_gateway(make_gateway(models={"selector": {"matchExpressions": [{"key": "a"}]}}), settings)


def test_an_adapter_is_a_name_like_any_other(make_gateway, make_model) -> None:
    adapter = {"name": "legal", "source": {"uri": "hf://org/lora"}}
    old = make_model("old", metadata={"creationTimestamp": "2025-01-01T00:00:00Z"}, adapters=[adapter])
    young = make_model("young", servedModelName="legal")
    published, refused = published_models(make_gateway(), [young, old], {})
    assert [model.deployment.served_names for model in published] == [("old", "legal")]
    assert "already serves the name 'legal'" in refused[young.key]
