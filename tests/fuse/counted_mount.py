"""A mount whose requests are counted: a server in a process of its own that tells on its standard output.

As a program, `python counted_mount.py IMAGE MOUNTPOINT OPTIONS`: prints "ready", then, for each line on its standard
input, all requests so far as a JSON object; ends when the file system is unmounted.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyfuse3

from hammerfs.cli.mount_options import parse_mount_options
from hammerfs.device.file import FileDevice
from hammerfs.fs.mount import FileSystem
from hammerfs.vfs.operations import HammerOperations
from hammerfs.vfs.readiness import Readiness
from hammerfs.vfs.server import serve
from hammerfs.vfs.xattroperations import operations_for

NOT_COUNTED = {"init", "stacktrace", "forget"}
"""Two that are no requests, and one that nobody waits for."""


def counted(operations: HammerOperations, counts: Counter[str]) -> HammerOperations:
    """The same handlers, each counting its calls; what is not implemented is counted, too."""

    def count(name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def called(*args: Any) -> Any:
            counts[name] += 1
            return handler(*args)

        return called

    for name in vars(pyfuse3.Operations):
        handler = getattr(operations, name)
        if callable(handler) and not name.startswith("_") and name not in NOT_COUNTED:
            setattr(operations, name, count(name, handler))
    return operations


def main(image: str, mountpoint: str, options: str) -> None:
    request = parse_mount_options([options], by_root=os.geteuid() == 0)
    fs = FileSystem.open([FileDevice(image, writable=True)], request.filesystem)
    counts: Counter[str] = Counter()

    def tell() -> None:
        for _ in sys.stdin:
            print(json.dumps(counts.copy()), flush=True)

    threading.Thread(target=tell, daemon=True).start()
    ready = Readiness(lambda message: print("ready", flush=True))
    serve(counted(operations_for(fs, private=request.private), counts), mountpoint, image, request.kernel, ready)


class Requests:
    """The other end of the pipe."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server
        self._counted: Counter[str] = Counter()
        self._open_count = 0

    def of(self, action: Callable[[], object]) -> Counter[str]:
        """What an action asks for, by handler name.  It must close what it opens."""
        self._settled()
        action()
        return self._settled()

    def _settled(self) -> Counter[str]:
        """What was asked since the last call.  RELEASE comes when the kernel likes, so this waits for the last one."""
        counts: Counter[str] = Counter()
        while True:
            latest = self._since_last()
            counts += latest
            self._open_count += latest["open"] + latest["create"] + latest["opendir"]
            self._open_count -= latest["release"] + latest["releasedir"]
            if self._open_count == 0:
                return counts

    def _since_last(self) -> Counter[str]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write("\n")
        self._server.stdin.flush()
        before, self._counted = self._counted, Counter(json.loads(self._server.stdout.readline()))
        return self._counted - before


@contextmanager
def counting(image: Path, mountpoint: Path, options: str = "") -> Iterator[Requests]:
    """Serve an image during the block."""
    command = [sys.executable, __file__, str(image), str(mountpoint), options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "ready\n"
            yield Requests(server)
        finally:
            subprocess.run(["fusermount3", "-u", mountpoint], check=False)
            assert server.wait(60) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
