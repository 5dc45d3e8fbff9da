"""Mounts that cannot be asked, and lines of cleanup that fail: the others are served all the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hammerfs.cli import directive_cleanup, directive_stats, directive_status
from hammerfs.cli.cleanup_told import HANDLED, Told
from hammerfs.cli.hammer import main
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.errors import HammerError, UsageError
from hammerfs.ops.cleanup_config import ConfigLine
from hammerfs.vfs import controlclient
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, Mount

DEAD, FOREIGN = OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN)), UsageError("the server has ended")
REFUSALS: dict[str, Exception] = {"/dead": DEAD, "/foreign": FOREIGN}
NOT_CONNECTED = os.strerror(errno.ENOTCONN)


class Answering:
    """A mount that has one PFS."""

    def call(self, operation: str, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {"info": {"pfs_list": [{"id": 0}]}}[operation]


@contextmanager
def reaching(_options: HammerOptions, path: str, **_writable: bool) -> Iterator[Answering]:
    """What stands in for the one of the same name."""
    if path in REFUSALS:
        raise REFUSALS[path]
    yield Answering()


def mounts() -> list[Mount]:
    return [Mount("0:1", path, FILESYSTEM_KIND, "", 0) for path in ("/dead", "/one", "/foreign", "/two")]


def test_cleanup_leaves_out_what_cannot_be_asked_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def clean(_options: HammerOptions, path: str, *_others: object) -> int:
        cleaned.append(path)
        return 0

    for name, stand_in in (("mounts", mounts), ("reaching", reaching), ("_clean", clean)):
        monkeypatch.setattr(directive_cleanup, name, stand_in)
    assert main(["cleanup"]) == 1
    assert cleaned == ["/one", "/two"]
    assert capsys.readouterr().out.splitlines() == [
        f"cleanup /dead                - {NOT_CONNECTED}",
        "cleanup /foreign             - the server has ended",
    ]


@pytest.mark.parametrize("error", [DEAD, FOREIGN])
@pytest.mark.parametrize("period", [0, 86400])
def test_a_line_of_cleanup_that_fails_keeps_none_of_the_next_from_its_turn(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    period: int,
    tmp_path: Path,
) -> None:
    def fail(*_arguments: object) -> list[str]:
        raise error

    monkeypatch.setattr(directive_cleanup, "_links", fail)
    told = Told()
    told.pfs("/one", HANDLED)
    pfs = directive_cleanup._Pfs(HammerOptions(), told, "/one", tmp_path, has_records=True)
    with directive_cleanup.noted() as running:
        assert directive_cleanup._line(pfs, ConfigLine("snapshots", period, 60, any_name=False), running) == 2
        assert directive_cleanup._line(pfs, ConfigLine("prune", 0, 60, any_name=False), running) == 0
    output = capsys.readouterr()
    word = "run" if period else "failed"
    assert output.out.splitlines() == [f"           snapshots - {word}", "               prune - disabled"]
    assert output.err == f"    {NOT_CONNECTED if error is DEAD else error}\n"
    assert not pfs.without_snapshots, "or prune would keep nothing"


def test_info_names_the_mounts_that_cannot_be_asked_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(directive_status, "mounts", mounts)
    monkeypatch.setattr(directive_status, "reaching", reaching)
    monkeypatch.setattr(directive_status, "info_lines", lambda result: shown.append(result) or iter(()))
    assert main(["info"]) == 1
    assert [result["path"] for result in shown] == ["/one", "/two"]
    assert capsys.readouterr().err.splitlines() == [
        f"hammer info: /dead: {NOT_CONNECTED}",
        "hammer info: /foreign: the server has ended",
    ]


def test_stats_adds_up_what_can_be_asked_and_names_a_mount_when_none_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(path: str, _expected: Mount | None = None) -> tuple[Mount, directive_stats.Counters]:
        if path in REFUSALS:
            raise REFUSALS[path]
        return Mount("0:1", path, FILESYSTEM_KIND, "", 0), {"btree": {}, "io": {"commits": 2}}

    monkeypatch.setattr(directive_stats, "mounts", mounts)
    monkeypatch.setattr(directive_stats, "_look", look)
    assert directive_stats._Watched(None).totals()["io"] == {"commits": 4}
    for path, words in (("/dead", f"/dead: {NOT_CONNECTED}"), ("/foreign", "/foreign: the server has ended")):
        with pytest.raises(HammerError, match=words) as found:
            directive_stats._Watched(path)
        assert found.value.exit_code == 2


def test_a_dead_mount_is_told_of_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lets its root be held, and says only then that nobody serves it."""

    def refuse(_held: int) -> os.stat_result:
        raise OSError(errno.ENOTCONN, NOT_CONNECTED)

    reached = controlclient.connected("/")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", refuse)
        with pytest.raises(UsageError, match=f"/: {NOT_CONNECTED}"):
            reached.__enter__()
