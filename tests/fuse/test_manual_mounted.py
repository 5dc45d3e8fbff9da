"""The examples of the manual pages that mount something, or show something on a mounted file system, are true."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from manual_pages import MOUNT, MOUNTING, PAGES, Session, complaints, examples
from past_image import make

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def pages_with(kind: str) -> list[str]:
    return [page for page in PAGES if any(example.kind == kind for example in examples(page))]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short name, as PFS records can hold."""
    with tempfile.TemporaryDirectory(prefix="hammerfs-man-") as name:
        yield Path(name)


@pytest.fixture
def session(folder: Path, tmp_path: Path) -> Iterator[Session]:
    """A session in the folder, in which nothing stays mounted."""
    session = Session(folder, tmp_path / "programs")
    yield session
    for path in sorted(folder.glob("*/")):
        if path.is_mount():
            session.output(f"hammerfs umount {path.name}")


@pytest.mark.parametrize("page", pages_with(MOUNTING))
def test_examples_that_mount_are_true(page: str, session: Session, folder: Path) -> None:
    make(folder / "disk.img")
    said = list(complaints(page, MOUNTING, session))
    assert not said, "\n\n".join(said)


@pytest.mark.parametrize("page", pages_with(MOUNT))
def test_examples_on_a_mount_are_true(page: str, session: Session) -> None:
    # Nothing but what the examples do brings anything to disk, or the versions that they show were others.
    session.output("mkfs.hammer -f -u 16M -L DATA --size 1G disk.img && mkdir mnt")
    assert session.output("hammerfs mount -o flush=3600 disk.img mnt") == []
    said = list(complaints(page, MOUNT, session))
    assert not said, "\n\n".join(said)
    assert session.output("hammerfs umount mnt && hammerfs check -q disk.img | tail -1") == ["clean"]
