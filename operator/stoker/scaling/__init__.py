"""The replica policy: a pure function from observed load to a replica count, with its reason in words."""

from stoker.scaling.decide import Decision, decide
from stoker.scaling.observed import EngineLoad, GatewayLoad, Replicas, Sample
from stoker.scaling.spec import Autoscaling
from stoker.scaling.state import Learned, Memory

__all__ = [
    "Autoscaling",
    "Decision",
    "EngineLoad",
    "GatewayLoad",
    "Learned",
    "Memory",
    "Replicas",
    "Sample",
    "decide",
]
