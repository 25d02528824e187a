"""Stoker's policy in the simulated world, as the operator's loop would call it."""

from __future__ import annotations

from sim.world import View

from stoker.scaling import Autoscaling, EngineLoad, GatewayLoad, Learned, Memory, Replicas, Sample, decide


class Stoker:
    """Reads by itself every two seconds; a reading that failed is no sample."""

    period = 2.0
    scrape = 0.0
    wakes = True

    def __init__(self, min_replicas: int = 1, max_replicas: int = 16, **spec: float) -> None:
        self.spec = Autoscaling(min_replicas=min_replicas, max_replicas=max_replicas, **spec)
        self.min_replicas, self.max_replicas = min_replicas, max_replicas
        self.learned, self.memory = Learned(), Memory()
        self.cold_starts_seen = 0

    def decide(self, view: View) -> int:
        reading = view.reading
        fresh = self.memory.time is None or reading.time > self.memory.time
        samples = []
        if fresh:
            gateway = GatewayLoad(reading.held, reading.arrivals, reading.completions)
            engines = {str(number): EngineLoad(*load) for number, load in reading.engines.items()}
            samples.append(Sample(reading.time, {"gateway": gateway}, engines))
        new = tuple(view.cold_starts[self.cold_starts_seen :])
        self.cold_starts_seen += len(new)
        replicas = Replicas(view.desired, view.ready, view.pending_ages, cold_starts=new)
        decision = decide(view.now, samples, replicas, self.learned, self.memory, self.spec)
        self.learned, self.memory = decision.learned, decision.memory
        return decision.desired
