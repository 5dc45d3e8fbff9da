"""A mount whose writes are recorded: `python -m crash_lib.recording_server IMAGE SPOOL MOUNTPOINT [SEED]`.

The same server as that of `hammerfs mount -f`, on a device that notes what is asked of it.  Says "ready" on standard
output when the mount can be used.

With a seed, it takes it, more often than not, that other requests wait, as they do where several programs are at work:
an fsync leaves the flush to the flusher's tasks then, which flush what it is about and little else.
"""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path

from crash_lib.spool import SpoolingDevice
from hammerfs.device.file import FileDevice
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.vfs import dispatch
from hammerfs.vfs.daemon import run_in_foreground
from hammerfs.vfs.mountpoint import prepare_mountpoint
from hammerfs.vfs.readiness import Readiness
from hammerfs.vfs.server import serve
from hammerfs.vfs.xattroperations import operations_for

COMPANY = 0.6
FLUSH_SECONDS = 0.5
"""Flushes by the timer are to happen within a short workload, too."""


def answer(image: str, spool: str, mountpoint: str, readiness: Readiness) -> int:
    """Serve until unmounted."""
    device = SpoolingDevice(FileDevice(image, writable=True), Path(spool))
    try:
        fs = FileSystem.open([device], MountOptions(flush_seconds=FLUSH_SECONDS))
        serve(operations_for(fs), mountpoint, image, (), readiness)
    finally:
        device.close()
    return 0


def main() -> int:
    """Serve the image named on the command line."""
    image, spool, mountpoint, *seeds = sys.argv[1:]
    if seeds:
        company = random.Random(*seeds)
        dispatch.request_waits = lambda: company.random() < COMPANY
    serving = partial(answer, image, spool, prepare_mountpoint(mountpoint))
    log_file = Path(spool).with_suffix(".log")
    return run_in_foreground(serving, lambda _: print("ready", flush=True), log_file)


if __name__ == "__main__":
    raise SystemExit(main())
