"""Where `hammer cleanup` keeps what it needs to know the next time: beside the snapshot softlinks of a PFS.

DragonFly's place is /var/hammer/<path of the mount>; who is not root has one of his own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hammerfs.cli.directive import DirectiveError

ROOT_BASE = Path("/var/hammer")


def state_folder(path: str, configured: str = "") -> Path:
    """The folder of the PFS at an absolute path; `configured` is what the PFS's record says."""
    if configured:
        if not configured.startswith("/"):
            raise DirectiveError("the snapshots folder of the PFS is not absolute")
        return Path(configured)
    if os.geteuid() == 0:
        base = ROOT_BASE
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "hammer"
    return base / (path.strip("/") or "root")


def last_run(folder: Path, word: str) -> int | None:
    """When a directive was last carried out, in seconds since 1970."""
    try:
        return int((folder / f".{word}.period").read_text().split()[0], 0)
    except (OSError, ValueError, IndexError):
        return None


def note_run(folder: Path, word: str, moment: int) -> None:
    """Note that a directive was carried out; it began at `moment`."""
    fresh = folder / f".{word}.period.new"
    fresh.write_text(f"{moment:#010x}\n")
    fresh.rename(folder / f".{word}.period")


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Have the folder for oneself in the block; False when another cleanup has it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
