"""A mounted file system for every test of this folder, checked when the test is over.

A test uses `hammer` as it comes, or calls `hammer_mount` with options of its own. All of them end the same way: the
file system is unmounted by `hammerfs umount`, `hammerfs check` must find it clean, and its servers must have made do
with the memory they were given.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hammer_mount import HammerMount, several
from sample_tree import build_tree


@pytest.fixture
def hammer_mount(tmp_path: Path) -> Iterator[Callable[..., HammerMount]]:
    """A function that makes a file system, with the arguments of HammerMount, and leaves the mounting to the test."""
    with several(tmp_path) as make:
        yield make


@pytest.fixture
def hammer(hammer_mount: Callable[..., HammerMount]) -> HammerMount:
    """A fresh file system of 16 GiB, mounted."""
    mount = hammer_mount()
    mount.mount()
    return mount


@pytest.fixture(scope="session")
def sample_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of files of all kinds, on the machine's own file system; for reading only."""
    top = tmp_path_factory.mktemp("sample") / "tree"
    build_tree(top)
    return top


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own may only the user who runs it."""
    with tempfile.TemporaryDirectory(prefix="hammerfs-real-") as name:
        os.chmod(name, 0o755)
        yield Path(name)
