"""One small mounted file system for all tests of a module, each in a folder of its own; checked after the last.

Making, mounting and checking takes a second or two, which is more than most tests of POSIX behaviour take.  A test that
needs options of its own, or ends a server, asks for `hammer_mount`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hammer_mount import HammerMount, several

SMALL = ("-f", "-u", "16M")
SIZE = "512M"


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own may only the user who runs it."""
    with tempfile.TemporaryDirectory(prefix="hammerfs-fuse-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def module_mount(open_folder: Path) -> Iterator[HammerMount]:
    """The module's file system; `allow_other`, so that tests can act as other users."""
    mount = HammerMount(open_folder, size=SIZE, mkfs=SMALL)
    try:
        mount.mount("allow_other")
        yield mount
        mount.umount()
        mount.check()
    finally:
        mount.remove()


@pytest.fixture
def here(module_mount: HammerMount, request: pytest.FixtureRequest) -> Path:
    """An empty folder on the module's file system, writable for everybody."""
    names = (f"{request.node.originalname}-{number}" for number in range(1000))
    folder = next(path for path in map(module_mount.path.joinpath, names) if not path.exists())
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def hammer_mount(tmp_path: Path) -> Iterator[Callable[[], HammerMount]]:
    """A function that makes a small file system and leaves the mounting to the test; checked at the end."""
    with several(tmp_path, size=SIZE, mkfs=SMALL) as make:
        yield make
