"""Half an hour of steady load in simulated time: the real loop, with a gateway and engines that serve as real ones would."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from unit.reconcile.scaling_world import KEY, NAME, START, World, world

COLD_START = 40.0
SLOTS = 2


class Service:
    """Requests of two seconds, two at a time in each replica, which takes forty seconds to start."""

    def __init__(self, here: World, rate: float, seed: int) -> None:
        self.here, self.rate, self.chance = here, rate, random.Random(seed)
        self.born: dict[int, float] = {1: START - 600}
        self.running: list[float] = []
        self.served = 0

    async def round(self) -> int:
        """Two seconds."""
        here, model = self.here, self.here.gateway.model(NAME)
        for _ in range(20):
            here.now += 0.1
            came = sum(self.chance.random() < self.rate / 100 for _ in range(10))
            model.arrivals += came
            model.held += came
            done = sum(end <= here.now for end in self.running)
            model.completions += done
            self.served += done
            self.running = [end for end in self.running if end > here.now]
            ready = [number for number, born in self.born.items() if here.now - born >= COLD_START]
            let_in = min(model.held, max(0, SLOTS * len(ready) - len(self.running)))
            model.held -= let_in
            self.running += [here.now + self.chance.uniform(1.0, 3.0) for _ in range(let_in)]
        for place, number in enumerate(ready):
            share = len(self.running) // len(ready) + (place < len(self.running) % len(ready))
            here.pod(number, age=here.now - self.born[number]).running = share
        for number in set(self.born) - set(ready):
            here.pod(number, ready=False, age=here.now - self.born[number])
        wanted = await here.tick(0)
        for number in range(len(self.born) + 1, wanted + 1):
            self.born[number] = here.now
        for number in range(wanted + 1, len(self.born) + 1):
            del self.born[number]
            here.forget_pod(number)
        return wanted


@pytest.mark.parametrize(("rate", "seed"), [(1.5, 1), (3.0, 2)])
async def test_half_an_hour_of_steady_load_turns_at_most_once_in_five_minutes(rate: float, seed: int) -> None:
    async with world() as here:
        here.model(autoscaling={"maxReplicas": 6}, maxConcurrentRequests=SLOTS)
        here.deployment(1)
        service = Service(here, rate, seed)
        wanted, told = [], []
        for _ in range(900):
            wanted.append(await service.round())
            if not told or told[-1] is not here.context.scaled[KEY]:
                told.append(here.context.scaled[KEY])
        turns, last = [], 0
        for number, (before, after) in enumerate(pairwise(wanted)):
            direction = (after > before) - (after < before)
            if direction and last and direction != last:
                turns.append(number * 2)
            last = direction or last
        assert all(sum(start <= turn < start + 300 for turn in turns) <= 1 for start in range(0, 1800, 60)), turns
        assert service.served > 0.9 * rate * 1800
        changes = sum(before != after for before, after in pairwise(wanted))
        print(f"{len(told)} statuses for {changes} changes")
        assert len(told) <= changes + 6, [each.status for each in told]
