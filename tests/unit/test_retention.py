"""Which records pruning may take: the rule against its definition, and which snapshots count."""

from __future__ import annotations

from itertools import product

import pytest

from hammerfs.ops.retention import BetweenSnapshots, Everything, Moment, demanded_tids

SNAPSHOTS = [30, 10, 20, 20]
LIFETIMES = [(create, delete) for create, delete in product(range(1, 40), repeat=2) if create < delete]


def shown(create: int, delete: int) -> bool:
    """Whether a demanded moment shows the record: a snapshot, or any moment since the newest one."""
    return any(create <= tid < delete for tid in SNAPSHOTS) or any(create <= tid < delete for tid in range(30, 60))


def test_a_record_goes_exactly_if_no_demanded_moment_shows_it() -> None:
    rule = BetweenSnapshots(SNAPSHOTS)
    kept = {lifetime for lifetime in LIFETIMES if not rule.dispensable(*lifetime)}
    assert kept == {lifetime for lifetime in LIFETIMES if shown(*lifetime)}
    assert all(Everything().dispensable(*lifetime) for lifetime in LIFETIMES)


def test_without_prune_min_every_snapshot_counts_once() -> None:
    moments = [Moment(30, 300), Moment(10, None), Moment(10, 100), Moment(20, 200)]
    assert demanded_tids(moments, 0, now=1000) == [10, 20, 30]


@pytest.mark.parametrize(
    ("prune_min", "expected"), [(1, [10, 20, 30]), (101, [10, 20]), (250, [10]), (301, []), (10_000, [])]
)
def test_snapshots_younger_than_prune_min_leave_history_whole(prune_min: int, expected: list[int]) -> None:
    """The newest one that counts is older than prune_min; from there on everything is kept."""
    moments = [Moment(10, 700), Moment(20, 800), Moment(30, 900)]
    assert demanded_tids(moments, prune_min, now=1000) == expected


def test_a_snapshot_of_unknown_age_counts_where_its_tid_puts_it() -> None:
    moments = [Moment(10, None), Moment(20, 990), Moment(30, None)]
    assert demanded_tids(moments, 100, now=1000) == [10]


def test_what_was_deleted_before_it_was_created_is_shown_by_no_snapshot() -> None:
    assert BetweenSnapshots([10, 20]).dispensable(30, 15)
