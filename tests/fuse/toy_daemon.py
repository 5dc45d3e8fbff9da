"""A mount command around the toy file system: what the tests of daemon life start, signal and kill.

`python toy_daemon.py [OPTIONS] BEHAVIOUR MOUNTPOINT`; prints what a mount command would and returns its exit code.
Once it serves, the message it prints is "served by PID".
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyfuse3
import trio
from toy_server import Toy, unmount

from hammerfs.errors import HammerError, UsageError
from hammerfs.vfs import daemon
from hammerfs.vfs.readiness import Readiness, verify_root_answers


def serve(mountpoint: str, spoil: Callable[[], None], readiness: Readiness) -> int:
    """Mount, call `spoil` when the root answers, report readiness, and serve until unmounted."""
    pyfuse3.init(Toy(), mountpoint, {"fsname=toy", "subtype=toy"})
    try:
        trio.run(_run, mountpoint, spoil, readiness)
    finally:
        pyfuse3.close(unmount=True)
    return 0


async def _run(mountpoint: str, spoil: Callable[[], None], readiness: Readiness) -> None:
    async def unmount_here() -> None:
        try:
            await trio.to_thread.run_sync(unmount, Path(mountpoint))
        except subprocess.CalledProcessError as error:
            raise HammerError("the toy is in use") from error

    async def report() -> None:
        await trio.to_thread.run_sync(verify_root_answers, mountpoint, abandon_on_cancel=True)
        spoil()
        readiness.ready(f"served by {os.getpid()}")

    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.unmount_on_signals, unmount_here)
        nursery.start_soon(report)
        await pyfuse3.main(min_tasks=4)
        nursery.cancel_scope.cancel()


def _nothing() -> None:
    pass


def _refuse() -> None:
    raise UsageError("the toy is broken")


def _refuse_with_code() -> None:
    error = HammerError("the toy is worn out")
    error.exit_code = 7
    raise error


def _have_a_bug() -> None:
    raise KeyError("toy")


def _vanish() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _return_at_once(readiness: Readiness) -> int:
    return 0


def _wait_for_ever(readiness: Readiness) -> int:
    print(f"starting {os.getpid()}", flush=True)
    while True:
        signal.pause()


def _before_mounting(spoil: Callable[[], None], readiness: Readiness) -> int:
    spoil()
    return 0


def behaviours(mountpoint: str) -> dict[str, daemon.Serve]:
    return {
        "serve": partial(serve, mountpoint, _nothing),
        "refuse": partial(_before_mounting, _refuse),
        "refuse-late": partial(serve, mountpoint, _refuse_with_code),
        "bug": partial(_before_mounting, _have_a_bug),
        "bug-late": partial(serve, mountpoint, _have_a_bug),
        "vanish": partial(_before_mounting, _vanish),
        "return": _return_at_once,
        "wait": _wait_for_ever,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--syslog", default="")
    parser.add_argument("behaviour")
    parser.add_argument("mountpoint")
    args = parser.parse_args()
    daemon.SYSLOG_SOCKET = args.syslog
    run = behaviours(args.mountpoint)[args.behaviour]
    try:
        if args.foreground:
            return daemon.run_in_foreground(run, partial(print, flush=True), args.log)
        print(daemon.run_in_background(run, args.log))
    except HammerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
