"""`hammer mirror-copy`, `mirror-stream`: both ends of a stream, here or on other hosts (`hammer_cmd_mirror_copy`).

Each end is a process of its own; a socket pair joins the stdin and stdout of the one to those of the other.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import NoReturn

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.mirror_pipe import check_target
from hammerfs.errors import UsageError

RETRY_SECONDS = 15
"""How long mirror-stream waits before it takes up a link again that was lost; -i comes on top."""
_SHELL = "HAMMER_RSH"


def copy(options: HammerOptions, source: str, target: str, *, streaming: bool) -> int:
    """Mirror once; the exit code of the end that failed, 0 when none did."""
    if options.specials:
        raise UsageError(
            "-f names one file system; mirror between two with 'hammer -f ... mirror-read' and 'mirror-write'"
        )
    check_target(options, source)
    check_target(options, target)
    sending = command(options, "mirror-read-stream" if streaming else "mirror-read", source)
    receiving = command(options, "mirror-write", target)
    return _joined(sending, receiving)


def stream(options: HammerOptions, source: str, target: str) -> int:
    """Mirror for ever: a lost link is taken up again."""
    while True:
        code = copy(options, source, target, streaming=True)
        if options.verbose:
            print(f"\nLost Link ({code})", file=sys.stderr, flush=True)
        time.sleep(RETRY_SECONDS + options.delay)


def command(options: HammerOptions, directive: str, place: str) -> list[str]:
    """The command line of one end: `[[user@]host:]path`, as hammer(8) takes it."""
    host, colon, path = place.partition(":")
    words = [*_options(options, directive), directive, path if colon else place]
    if not colon:
        return [sys.executable, "-m", "hammerfs.cli.hammer", *words]
    user, at, name = host.rpartition("@")
    if name.startswith("-") or user.startswith("-"):
        raise UsageError(f"{place} names no host")
    shell = [os.environ.get(_SHELL, "ssh"), *(["-C"] if options.compress else [])]
    shell += [*(["-l", user] if at else []), name, *(["-p", options.ssh_port] if options.ssh_port else [])]
    return [*shell, "hammer", *words]


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
