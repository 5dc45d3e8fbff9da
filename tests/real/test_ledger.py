"""The ledger that the kill test leans on notices every kind of loss, and lets pass what a crash may leave."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from crash_lib import ledger_writer
from crash_lib.ledger_writer import PAGE_BYTES, complaints, content_of, page_of, read_ledger, resized_to

Change = Callable[[Path], object]

ACKNOWLEDGED = [
    ("size", "new-7", 3000),
    ("size", "new-7", 5000),
    ("size", "append-0", 10_000),
    ("page", "2", 4),
    ("version", "replaced", 9),
    ("gone", "gone-3", 1),
    ("resize", "resized", 1),
    ("moves", "moved", 3),
]
SMALLER, LARGER = sorted((resized_to(1), resized_to(2)))


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path]:
    """A folder and a ledger that agree."""
    top, ledger = tmp_path / "top", tmp_path / "ledger"
    for name in ("append", "create", "overwrite", "replace", "remove", "resize", "move/here", "move/there"):
        (top / name).mkdir(parents=True)
    (top / "create" / "new-7").write_bytes(content_of("new-7", 5000))
    (top / "append" / "append-0").write_bytes(content_of("append-0", 10_000))
    (top / "overwrite" / "pages").write_bytes(bytes(2 * PAGE_BYTES) + page_of("pages", 2, 4))
    (top / "replace" / "replaced").write_bytes(content_of("replaced", 3 * PAGE_BYTES, 9))
    (top / "resize" / "resized").write_bytes(content_of("resized", resized_to(1)))
    (top / "move" / "there" / "3").write_bytes(content_of("moved", PAGE_BYTES))
    ledger.write_text("".join(json.dumps(line) + "\n" for line in ACKNOWLEDGED))
    return top, ledger


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


LOSSES: dict[str, Change] = {
    "a file is gone": lambda top: (top / "create/new-7").unlink(),
    "a file is short": lambda top: os.truncate(top / "append/append-0", 9_999),
    "a byte changed": lambda top: flip(top / "create/new-7", 4_999),
    "foreign bytes at the end": lambda top: (top / "create/new-7").write_bytes(
        content_of("new-7", 5000) + b"\xff" * 99
    ),
    "an older page": lambda top: (top / "overwrite/pages").write_bytes(bytes(2 * PAGE_BYTES) + page_of("pages", 2, 3)),
    "a torn page": lambda top: flip(top / "overwrite/pages", 3 * PAGE_BYTES - 1),
    "an older version": lambda top: (top / "replace/replaced").write_bytes(content_of("replaced", 3 * PAGE_BYTES, 8)),
    "half a version": lambda top: os.truncate(top / "replace/replaced", PAGE_BYTES),
    "no version": lambda top: (top / "replace/replaced").unlink(),
    "cut off too far": lambda top: os.truncate(top / "resize/resized", SMALLER - 1),
    "not cut off": lambda top: (top / "resize/resized").write_bytes(content_of("resized", LARGER + 1)),
    "cut off and forgotten": lambda top: flip(top / "resize/resized", SMALLER - 1),
    "moved and not": lambda top: (top / "move/here/2").touch(),
    "moved away": lambda top: (top / "move/there/3").unlink(),
    "moved back": lambda top: (top / "move/there/3").rename(top / "move/here/2"),
    "a removed file is back": lambda top: (top / "remove/gone-3").touch(),
}
LEFTOVERS: dict[str, Change] = {
    "nothing more": lambda top: None,
    "a longer file": lambda top: (top / "create/new-7").write_bytes(content_of("new-7", 6000)),
    "a longer file with a hole": lambda top: os.truncate(top / "append/append-0", 20_000),
    "a newer page": lambda top: (top / "overwrite/pages").write_bytes(bytes(2 * PAGE_BYTES) + page_of("pages", 2, 5)),
    "a newer version": lambda top: (top / "replace/replaced").write_bytes(content_of("replaced", 3 * PAGE_BYTES, 10)),
    "the next size": lambda top: (top / "resize/resized").write_bytes(content_of("resized", resized_to(2))),
    "half the next size": lambda top: (top / "resize/resized").write_bytes(content_of("resized", SMALLER + 1)),
    "the next move": lambda top: (top / "move/there/3").rename(top / "move/here/4"),
    "a file of another kind": lambda top: (top / "create/new-8").touch(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_noticed(written: tuple[Path, Path], loss: str) -> None:
    top, ledger = written
    LOSSES[loss](top)
    assert len(list(complaints(top, read_ledger(ledger)))) == 1


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_what_a_crash_may_leave_passes(written: tuple[Path, Path], leftover: str) -> None:
    top, ledger = written
    LEFTOVERS[leftover](top)
    assert list(complaints(top, read_ledger(ledger))) == []


def test_the_writer_says_each_line_at_once(tmp_path: Path) -> None:
    """Its processes share stderr, and half a line of one would take in what another says."""
    said, stderr = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ledger = tmp_path / "ledger"
    ledger.touch()
    with said, stderr:
        done = subprocess.run(
            [sys.executable, ledger_writer.__file__, tmp_path / "top", ledger, "seed"],
            stderr=stderr,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
            check=False,
        )
        said.setblocking(False)
        parts = []
        with suppress(BlockingIOError):
            while True:
                parts.append(said.recv(1 << 16))
    assert done.returncode == 1
    assert ledger_writer.LIVE_MOUNT + b"\n" in parts
    assert all(part.count(b"\n") == 1 and part.endswith(b"\n") for part in parts), parts
