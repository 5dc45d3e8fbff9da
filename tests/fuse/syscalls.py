"""System calls that Python's os module lacks, and acting as another user."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4
NOBODY = 65534

_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(source: Path, target: Path, flags: int) -> None:
    """renameat2(2); raises OSError."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def as_nobody(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script as an unprivileged user, with `path` as its $1.  Needs root."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", path],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
