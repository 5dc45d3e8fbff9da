"""A file that loses what was not flushed: `python -m crash_lib.losing_file BACKING MOUNTPOINT SEED`.

Mounts a folder with one file in it, `image`, which has the contents of BACKING.  What is written to it stays in this
process's memory until fsync, past the kernel's page cache.  SIGUSR1 cuts the power: of what was written to a sector
since the last fsync none or any one reaches BACKING, the newest or one before it, by chance; the process is gone.

This kernel need have no device mapper and no network block device for that, only FUSE.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import sys
from collections.abc import Sequence

import pyfuse3
import trio

SECTOR_SIZE = 512
_FILE = pyfuse3.InodeT(2)
Unflushed = dict[int, list[bytes]]
"""By number of a sector everything that was written to it since the last fsync, oldest first."""


def survivors(unflushed: Unflushed, source: random.Random) -> dict[int, bytes]:
    """What of each sector a power cut leaves on the medium, where that is not what the last fsync left there.

    A cache writes sectors back whenever it likes, so what came last may be any write, not only the newest.
    """
    kept = source.choice((0.0, 0.1, 0.5, 0.9))
    newest = source.choice((0.5, 1.0))
    found = {}
    for sector, versions in unflushed.items():
        if source.random() < kept:
            found[sector] = versions[-1] if source.random() < newest else source.choice(versions)
    return found


class LosingFile(pyfuse3.Operations):
    """The one file, and what of it is not flushed."""

    def __init__(self, backing: str, seed: str) -> None:
        super().__init__()
        self._fd = os.open(backing, os.O_RDWR)
        self._size = os.fstat(self._fd).st_size
        self._random = random.Random(seed)
        self.unflushed: Unflushed = {}

    def cut(self) -> None:
        """The power fails."""
        for sector, data in survivors(self.unflushed, self._random).items():
            os.pwrite(self._fd, data, sector * SECTOR_SIZE)
        os._exit(0)

    async def getattr(self, inode: int, ctx: object = None) -> pyfuse3.EntryAttributes:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = pyfuse3.InodeT(inode)
        is_root = inode == pyfuse3.ROOT_INODE
        attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644)
        attributes.st_nlink = 1
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        attributes.st_size = 0 if is_root else self._size
        return attributes

    async def lookup(self, parent_inode: int, name: bytes, ctx: object = None) -> pyfuse3.EntryAttributes:
        if name != b"image":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(_FILE)

    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self._content(off, size)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        first, start = divmod(off, SECTOR_SIZE)
        sectors = -(-(start + len(buf)) // SECTOR_SIZE)
        whole = bytearray(self._content(first * SECTOR_SIZE, sectors * SECTOR_SIZE))
        whole[start : start + len(buf)] = buf
        for index in range(sectors):
            sector = bytes(whole[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE])
            self.unflushed.setdefault(first + index, []).append(sector)
        return len(buf)

    async def fsync(self, fh: int, datasync: bool) -> None:
        for sector, versions in self.unflushed.items():
            os.pwrite(self._fd, versions[-1], sector * SECTOR_SIZE)
        self.unflushed.clear()

    async def flush(self, fh: int) -> None:
        """Closing is no barrier."""

    def _content(self, offset: int, size: int) -> bytes:
        content = os.pread(self._fd, size, offset)
        first, last = offset // SECTOR_SIZE, (offset + size - 1) // SECTOR_SIZE
        held = [sector for sector in range(first, last + 1) if sector in self.unflushed]
        if not held:
            return content
        patched = bytearray(content)
        for sector in held:
            at = sector * SECTOR_SIZE - offset
            data = self.unflushed[sector][-1]
            low, high = max(0, at), min(size, at + SECTOR_SIZE)
            patched[low:high] = data[low - at : high - at]
        return bytes(patched)


async def _serve(file: LosingFile) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait_for_the_cut, file)
        print("ready", flush=True)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


async def _wait_for_the_cut(file: LosingFile) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            file.cut()


def main(arguments: Sequence[str]) -> int:
    """Serve until unmounted or cut."""
    backing, mountpoint, seed = arguments
    file = LosingFile(backing, seed)
    pyfuse3.init(file, mountpoint, {"fsname=losing", "subtype=losing"})
    try:
        trio.run(_serve, file)
    finally:
        pyfuse3.close(unmount=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
