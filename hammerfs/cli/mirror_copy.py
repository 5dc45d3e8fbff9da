"""`hammer mirror-copy`, `mirror-stream`: both ends of a stream, here or on other hosts (`hammer_cmd_mirror_copy`).

Each end is a process of its own; a socket pair joins the stdin and stdout of the one to those of the other.  With -f an
end may lie on volumes that nobody has mounted: one -f is for both ends, of two the first is for the source and the
second for the target, and an empty one means what is mounted.  Both ends on the same volumes need no stream: one
process opens them (`mirror_within.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.mirror_end import check_target
from hammerfs.cli.mirror_within import copy_within
from hammerfs.errors import UsageError

RETRY_SECONDS = 15
"""How long mirror-stream waits before it takes up a link again that was lost; -i comes on top."""
_SHELL = "HAMMER_RSH"


def copy(options: HammerOptions, source: str, target: str, *, streaming: bool) -> int:
    """Mirror once; the exit code of the end that failed, 0 when none did."""
    check_target(options, source)
    check_target(options, target)
    read_from, write_to = _volumes(options, source, target)
    if streaming and read_from:
        raise UsageError("what nobody has mounted does not change: mirror from it with mirror-copy")
    if read_from and _same_files(read_from, write_to):
        return copy_within(options, source, target)
    sending = command(options, "mirror-read-stream" if streaming else "mirror-read", source, read_from)
    receiving = command(options, "mirror-write", target, write_to)
    return _joined(sending, receiving)


def stream(options: HammerOptions, source: str, target: str) -> int:
    """Mirror for ever: a lost link is taken up again."""
    while True:
        code = copy(options, source, target, streaming=True)
        if options.verbose:
            print(f"\nLost Link ({code})", file=sys.stderr, flush=True)
        time.sleep(RETRY_SECONDS + options.delay)


def _volumes(options: HammerOptions, source: str, target: str) -> tuple[list[str], list[str]]:
    """The volumes of either end, none for one that is mounted, or on another host; UsageError when it is not clear."""
    sets = options.volume_sets
    if len(sets) > 2:
        raise UsageError(
            "one -f names the volumes of both ends, two of them those of the source and those of the target"
        )
    read_from, write_to = ([*sets, *sets][:2]) if sets else ([], [])
    for place, volumes in ((source, read_from), (target, write_to)):
        if ":" in place and volumes and len(sets) == 2:
            raise UsageError(f"{place} is on another host, where -f names no volumes")
    return [] if ":" in source else read_from, [] if ":" in target else write_to


def _same_files(some: list[str], others: list[str]) -> bool:
    return {os.path.realpath(path) for path in some} == {os.path.realpath(path) for path in others}


def command(options: HammerOptions, directive: str, place: str, volumes: Sequence[str] = ()) -> list[str]:
    """The command line of one end: `[[user@]host:]path`, as hammer(8) takes it, or a path on volumes."""
    host, colon, path = place.partition(":")
    words = [*_options(options, directive), directive, path if colon else place]
    if not colon:
        where = ["-f", ":".join(volumes)] if volumes else []
        if directive != "mirror-write":
            where += _kept_here(options)
        return [sys.executable, "-m", "hammerfs.cli.hammer", *where, *words]
    user, at, name = host.rpartition("@")
    if name.startswith("-") or user.startswith("-"):
        raise UsageError(f"{place} names no host")
    shell = [os.environ.get(_SHELL, "ssh"), *(["-C"] if options.compress else [])]
    shell += [*(["-l", user] if at else []), name, *(["-p", options.ssh_port] if options.ssh_port else [])]
    return [*shell, "hammer", *words]


def _kept_here(options: HammerOptions) -> list[str]:
    """Files of this machine that tell how far mirroring is; who reads on another one has none of them."""
    files = (("-c", options.cycle_path), ("-e", options.scoreboard))
    return [word for letter, path in files if path is not None for word in (letter, path)]


def _options(options: HammerOptions, directive: str) -> list[str]:
    words = []
    if options.verbosity > 0:
        words.append("-" + "v" * min(options.verbosity, 3))
    if options.yes:
        words.append("-y")
    words.append("-2")
    if directive == "mirror-write":
        return words
    for letter, value in (("-t", options.timeout), ("-S", options.splitup), ("-b", options.bandwidth)):
        if value:
            words += [letter, str(value)]
    if options.bulk:
        words.append("-B")
    if directive == "mirror-read-stream":
        words += ["-i", str(options.delay)]
    return words


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """Whoever ends this process ends both ends with it; without it they would go on, joined to each other."""
    raise SystemExit(128 + number)


def _joined(sending: list[str], receiving: list[str]) -> int:
    """Run both ends until both have ended; when one fails, the other one finds its stream at an end."""
    ours, theirs = socket.socketpair()
    processes: list[subprocess.Popen[bytes]] = []
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with ours, theirs:
            for words, end in ((sending, ours), (receiving, theirs)):
                processes.append(subprocess.Popen(words, stdin=end.fileno(), stdout=end.fileno()))
        codes = [process.wait() for process in processes]
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
        signal.signal(signal.SIGTERM, before)
    # The end that failed by itself says more than the one that lost its partner.
    return next((code for code in codes if code not in (0, 141)), max(codes))
