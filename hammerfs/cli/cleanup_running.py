"""The cleanups that run: each leaves a note with its process number, locked as long as it runs, for `abort-cleanup`.

SIGTERM ends one as ^C does: what runs comes to a step at which it remembers how far it got, and nothing else begins.
Source: `cmd_cleanup.c`, `cmd_abort.c`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hammerfs.errors import UsageError
from hammerfs.vfs.serverfile import own_folder, runtime_folder

_PREFIX = "hammer.cleanup."


class RunningCleanup:
    """This process, cleaning up.

    aborted -- somebody asked it to end
    """

    def __init__(self) -> None:
        self.aborted = False

    def abort(self, _number: int, _frame: FrameType | None) -> None:
        """What SIGTERM does: the same as ^C, and nothing is begun any more."""
        self.aborted = True
        signal.raise_signal(signal.SIGINT)


@contextmanager
def noted() -> Iterator[RunningCleanup]:
    """This process cleans up, for the time of the block."""
    running = RunningCleanup()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_note())
        except (OSError, UsageError) as error:
            print(f"abort-cleanup will not find this process: {error}", file=sys.stderr)
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, running.abort))
        yield running


@contextmanager
def _note() -> Iterator[None]:
    folder = runtime_folder(os.geteuid())
    own_folder(folder)
    path = folder / f"{_PREFIX}{os.getpid()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def abort_all() -> list[int]:
    """Ask all cleanups of this user to end; the processes that were asked.  Notes of those that are gone go, too."""
    asked = []
    for path in sorted(runtime_folder(os.geteuid()).glob(f"{_PREFIX}*")):
        pid = _pid_of(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if _is_locked(descriptor) and pid is not None:
                os.kill(pid, signal.SIGTERM)
                asked.append(pid)
            else:
                path.unlink(missing_ok=True)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
    return asked


def _pid_of(path: Path) -> int | None:
    digits = path.name.removeprefix(_PREFIX)
    return int(digits) if digits.isdecimal() and int(digits) > 0 else None


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
