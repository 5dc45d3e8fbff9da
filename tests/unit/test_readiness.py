"""When a mount counts as answering: damage in the root directory is an answer, a dead server is none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hammerfs.errors import UsageError
from hammerfs.vfs import readiness


def failing(number: int) -> object:
    def scandir(_path: str) -> object:
        raise OSError(number, os.strerror(number))

    return scandir


def test_a_root_that_cannot_be_listed_whole_is_mounted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", failing(errno.EIO))
    monkeypatch.setattr(readiness.os.path, "dirname", lambda _path: "/proc")
    readiness.verify_root_answers(str(tmp_path), 10)


def test_a_server_that_is_gone_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "scandir", failing(errno.ENOTCONN))
    with pytest.raises(UsageError, match="is gone"):
        readiness.refuse_dead_mount(str(tmp_path), 10)
