"""What `restore` does with files: deep trees, odd names, modes that are in its way, what it says when it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hammerfs.cli.differences import print_differences
from hammerfs.cli.looking_back import MountedPast
from hammerfs.cli.restore import _bring_back
from hammerfs.cli.treeremove import remove_tree
from hammerfs.ops.progress import SilentProgress

pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]
DEPTH = 1200


def bring_back(source: Path, target: Path) -> None:
    """From one place of an ordinary file system to another."""
    _bring_back(MountedPast(), str(source), target, SilentProgress())


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """The place of `source`, a tree that is deeper than Python calls; what is made there goes in the end."""
    place = tmp_path / "deep"
    folder = place / "source"
    folder.mkdir(parents=True)
    here = os.open(folder, os.O_DIRECTORY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.utime(here, (0, 1_000_000_000))
    os.close(here)
    os.utime(folder, (0, 1_000_000_000))
    yield place
    assert remove_tree(place) == []


def test_a_tree_that_is_deeper_than_python_calls(deep: Path) -> None:
    target = deep / "target"
    for _ in range(2):  # the second time there is one to be replaced
        bring_back(deep / "source", target)
        assert sorted(path.name for path in deep.iterdir()) == ["source", "target"]
        for path in (target, target.joinpath(*["d"] * DEPTH)):
            assert path.stat().st_mtime == 1_000_000_000


def test_differences_of_a_tree_that_is_deeper_than_python_calls(deep: Path, capsys: Capture) -> None:
    (deep / "now").mkdir()
    print_differences(MountedPast(), str(deep / "now"), str(deep / "source"))
    lines = capsys.readouterr().out.splitlines()
    only = [line for line in lines if line.startswith("only then: ")]
    assert len(only) == DEPTH
    assert only[0].endswith("/now/d (directory)")
