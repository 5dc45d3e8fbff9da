"""The past of a mounted file system, asked for while it is in use."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hammer_mount import HammerMount, hammerfs, run

pytestmark = pytest.mark.mount

UNDO = [sys.executable, "-m", "hammerfs.cli.undo"]


def undo(*words: str | Path, cwd: Path | None = None, code: int = 0) -> str:
    """What `undo` prints."""
    done = subprocess.run([*UNDO, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout


def command(*words: str | Path, cwd: Path | None = None, accept: int = 0) -> str:
    """What a command of `hammerfs` prints."""
    return run(Path(sys.executable).with_name("hammerfs"), *words, cwd=cwd, accept=accept)


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


def test_deleted_things_are_listed_and_come_back_as_they_were(here: Path) -> None:
    folder = here / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("contents")
    os.link(folder / "inner" / "file", folder / "second name")
    (folder / "link").symlink_to("inner/file")
    folder.chmod(0o750)
    synced(here)
    changed_us = (folder / "inner" / "file").stat().st_mtime_ns // 1000
    shutil.rmtree(folder)
    gone = json.loads(command("ls", "--deleted", "--json", ".", cwd=here))["directories"][0]["names"]
    assert [(name["name"], name["exists"]) for name in gone] == [("folder", False)]
    seen = here / f"folder@@{gone[0]['last_tid']}"
    assert (seen / "inner" / "file").read_text() == "contents"
    assert command("restore", "folder", cwd=here).startswith("restored folder@@0x")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert (folder / "second name").samefile(folder / "inner" / "file")
    assert os.readlink(folder / "link") == "inner/file"
    assert (folder / "inner" / "file").stat().st_mtime_ns // 1000 == changed_us
    assert sorted(os.listdir(here)) == ["folder"]
    tid = gone[0]["last_tid"]
    assert subprocess.run(["diff", "-r", folder, seen], check=False).returncode == 0
    assert command("diff", f"folder@@{tid}", "folder", cwd=here) == ""


def test_a_removal_that_was_flushed_in_between_is_undone_as_a_whole(here: Path) -> None:
    """`rm -r` of a large directory lasts longer than the flusher waits; its last state on disk is nearly empty."""
    proj = here / "proj"
    names = {f"{folder}/{number}" for folder in ("a", "b/c", ".") for number in range(20)}
    for name in names:
        (proj / name).parent.mkdir(parents=True, exist_ok=True)
        (proj / name).write_text(name)
    synced(here)
    (proj / "b/c/19").write_text("changed at last")
    shutil.rmtree(proj / "a")
    synced(here)
    shutil.rmtree(proj / "b")
    synced(here)
    for number in range(19):
        (proj / str(number)).unlink()
    last = synced(here)
    shutil.rmtree(proj)
    assert ", as it was before 63 names went from " in command("restore", "proj", cwd=here)
    back = {str(path.relative_to(proj)) for path in proj.rglob("*") if path.is_file()}
    assert back == {name.removeprefix("./") for name in names}
    assert (proj / "b/c/19").read_text() == "changed at last"
    assert os.listdir(here / f"proj@@{last}") == ["19"]
    command("restore", "--tid", last, "--force", "proj", cwd=here)
    assert os.listdir(proj) == ["19"]
    events = [line.split()[3] for line in command("log", "proj/b/c/7", cwd=here).splitlines()]
    assert events == ["folder,", "removed", "created", "folder,", "removed", "created"]
    assert undo("-t", "1", "proj/b/c/19", cwd=here).endswith("\n\nchanged at last")


def test_what_stands_in_the_way_is_replaced_only_when_asked_for(here: Path) -> None:
    file = here / "file"
    file.write_text("old\n")
    tid = synced(here)
    file.write_text("new\n")
    out = command("restore", "--tid", tid, file).splitlines()
    assert out[-3:-1] == ["-new", "+old"]
    assert (file.read_text(), (here / f"file.{tid}").read_text()) == ("new\n", "old\n")
    command("restore", "--tid", tid, "--force", file)
    assert file.read_text() == "old\n"
    # What was replaced had not been flushed when it was, and is in the history all the same.
    events = [line.split()[3] for line in command("log", file).splitlines()]
    assert events == ["renamed", "removed", "changed", "created"]


def test_differences_of_a_whole_file_system(module_mount: HammerMount, here: Path) -> None:
    (here / "file").write_text("old")
    tid = synced(here)
    (here / "file").write_text("newer")
    (here / "added").touch()
    for words in ([tid, module_mount.path], [module_mount.path / f"@@{tid}", module_mount.path]):
        told = command("diff", *words, accept=1).splitlines()
        assert told == [f"+ {here.name}/added", f"M {here.name}/file (data, 3 -> 5 bytes)"]
    assert command("diff", tid, here, accept=1).splitlines() == ["+ added", "M file (data, 3 -> 5 bytes)"]
