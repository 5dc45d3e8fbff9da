"""`hammer stats` of several mounts, of which some do not answer."""

from __future__ import annotations

import pytest

from hammerfs.cli import directive_stats
from hammerfs.cli.directive_stats import Counters
from hammerfs.errors import HammerError
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, Mount


class Machine:
    """Mounts and the commits they tell of; one with None does not answer."""

    def __init__(self, **counts: int | None) -> None:
        self.counts = counts

    def mounts(self) -> list[Mount]:
        return [Mount("0:1", path, FILESYSTEM_KIND, "", 0) for path in self.counts]

    def look(self, path: str, expected: Mount | None = None) -> tuple[Mount, Counters]:
        commits = self.counts.get(path)
        if commits is None:
            raise HammerError(f"{path} does not answer")
        return Mount("0:1", path, FILESYSTEM_KIND, "", 0), {"btree": {}, "io": {"commits": commits}}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(stuck=None, a=1, b=2)
    monkeypatch.setattr(directive_stats, "_look", made.look)
    monkeypatch.setattr(directive_stats, "mounts", made.mounts)
    return made


def test_one_that_does_not_answer_hides_none_of_the_others(machine: Machine) -> None:
    watched = directive_stats._Watched(None)
    assert watched.totals()["io"] == {"commits": 3}
    machine.counts = {"stuck": None, "b": 7}
    assert watched.news()["io"] == {"commits": 5}
    machine.counts = {"b": 8}
    assert watched.news()["io"] == {"commits": 1}


def test_what_is_mounted_later_counts_from_then_on(machine: Machine) -> None:
    watched = directive_stats._Watched(None)
    machine.counts |= {"b": 3, "later": 1000}
    assert watched.news()["io"] == {"commits": 1}
    machine.counts |= {"later": 1010}
    assert watched.news()["io"] == {"commits": 10}


def test_one_that_is_named_is_alone(machine: Machine) -> None:
    watched = directive_stats._Watched("b")
    machine.counts |= {"a": 100, "b": 4}
    assert watched.news()["io"] == {"commits": 2}


def test_it_ends_when_none_answers(machine: Machine) -> None:
    with pytest.raises(HammerError, match="stuck does not answer"):
        directive_stats._Watched("stuck")
    watched = directive_stats._Watched(None)
    machine.counts = {"a": None}
    with pytest.raises(HammerError, match="a does not answer"):
        watched.news()
    machine.counts = {}
    with pytest.raises(HammerError, match="No mounted HAMMER filesystems found"):
        watched.news()
