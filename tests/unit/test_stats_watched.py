"""`hammer stats` of several mounts, of which some do not answer."""

from __future__ import annotations

import pytest

from hammerfs.cli import directive_stats
from hammerfs.cli.directive_stats import Counters
from hammerfs.errors import HammerError
from hammerfs.vfs.mounttable import Mount


class Machine:
    """Counters by path; a path that is missing does not answer."""

    def __init__(self, **counts: int) -> None:
        self.counts = counts

    def look(self, path: str, expected: Mount | None = None) -> tuple[Mount | None, Counters]:
        if path not in self.counts:
            raise HammerError(f"{path} does not answer")
        return None, {"btree": {}, "io": {"commits": self.counts[path]}}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(a=1, b=2)
    monkeypatch.setattr(directive_stats, "_look", made.look)
    return made


def test_one_that_does_not_answer_hides_none_of_the_others(machine: Machine) -> None:
    watched = directive_stats._Watched(["gone", "a", "b"])
    assert watched.totals()["io"] == {"commits": 3}
    machine.counts = {"b": 7}
    assert watched.news()["io"] == {"commits": 5}
    machine.counts = {"a": 100, "b": 8}
    assert watched.news()["io"] == {"commits": 1}


def test_it_ends_when_none_answers(machine: Machine) -> None:
    with pytest.raises(HammerError, match="gone does not answer"):
        directive_stats._Watched(["gone"])
    watched = directive_stats._Watched(["a"])
    machine.counts = {}
    with pytest.raises(HammerError, match="a does not answer"):
        watched.news()
