"""The past of a mounted file system, asked for while it is in use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hammer_mount import HammerMount, hammerfs

pytestmark = pytest.mark.mount

UNDO = [sys.executable, "-m", "hammerfs.cli.undo"]


def undo(*words: str | Path, cwd: Path | None = None, code: int = 0) -> str:
    """What `undo` prints."""
    done = subprocess.run([*UNDO, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout


def synced(folder: Path) -> str:
    """Everything is flushed; the TID of that state."""
    return hammerfs("synctid", folder).strip()


def moments(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(undo("-i", "--json", path))["paths"][0]["versions"]
    return found


def test_undo_sees_what_was_written_a_moment_ago(here: Path) -> None:
    file = here / "file"
    file.write_text("one\n")
    synced(here)
    file.write_text("two\n")
    assert undo(file).endswith("\n\none\n")
    assert undo("-d", "file", cwd=here).splitlines()[-2:] == ["-one", "+two"]
    file.unlink()
    assert undo(file).endswith("\n\ntwo\n")
    assert [moment["exists"] for moment in moments(file)] == [True, True, False]


def test_moments_lead_to_the_versions(here: Path) -> None:
    file = here / "file"
    for text in ("one", "two two", ""):
        file.write_text(text)
        synced(here)
    versions = moments(file)
    assert [(here / f"file@@{version['tid']}").read_text() for version in versions] == ["one", "two two", ""]


def test_the_history_of_a_link_is_that_of_its_target(here: Path) -> None:
    file = here / "file"
    file.write_text("one")
    synced(here)
    assert " clean {" in hammerfs("history", file)
    (here / "link").symlink_to("file")
    lines = hammerfs("-v", "history@0,5", here / "link").splitlines()
    assert [line.partition("'")[2] for line in lines[1:-1]] == ["one'"]


def test_a_root_directory_has_a_history_too(module_mount: HammerMount, here: Path) -> None:
    assert moments(module_mount.path)
    assert hammerfs("history", module_mount.path).count("\n") >= 3


def test_elsewhere_there_is_none(tmp_path: Path) -> None:
    done = subprocess.run([*UNDO, tmp_path / "x"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"undo: {tmp_path} does not lie on a mounted HAMMER file system\n"
