"""The exploration of crashes can see: with any single protection taken away it finds states that come back wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crash_lib.explore import Effort, Explorer, Tally
from crash_lib.generated import Plan, Workload, record
from crash_lib.plans import PLANS
from crash_mutants import MUTANTS

SEEDS = range(1, 9)
SEEDS_OF = {"what is freed in memory reused": (13, 20, 27)}
"""Where few seeds show it, one in nine, these are they."""
STATES_MAX = 500
KINDS: dict[str, Callable[[int], Plan]] = {**PLANS, "old": lambda seed: Plan(version=3, steps=30)}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_missing_protection_is_seen(mutant: str) -> None:
    kind, patch = MUTANTS[mutant]
    for seed in SEEDS_OF.get(mutant, SEEDS):
        try:
            with patch:
                workload = record(KINDS[kind](seed), seed)
        except AssertionError:
            continue  # it stumbled over itself before the power was cut
        if failures_of(workload):
            return
    pytest.fail("nothing was found")


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in MUTANTS.values()}))
def test_nothing_is_seen_where_nothing_is_missing(kind: str) -> None:
    assert not failures_of(record(KINDS[kind](1), 1))


def failures_of(workload: Workload) -> list[tuple[str, ...]]:
    """Complaints about a workload's states, until there are some."""
    tally = Tally()
    explorer = Explorer(workload, Effort(states=12, exhaustive=16, again=40), tally, 1)
    explorer.explore(lambda: bool(tally.failures) or len(tally.states) > STATES_MAX)
    return [failure.complaints for failure in tally.failures]
