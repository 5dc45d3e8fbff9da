"""A mounted file system: everything below FUSE behind one face.

Operations are plain synchronous calls on memory and B-tree; only what waits for the flusher is asynchronous.  The face
holds no rules of its own: each call goes to the module whose subject it is.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import trio

from hammerfs.device.base import Device
from hammerfs.device.overlay import OverlayDevice
from hammerfs.errors import (
    CorruptionError,
    DeviceError,
    FileOperationError,
    FlushFailedError,
    HammerError,
    NotHammerError,
    UsageError,
)
from hammerfs.fs import attributes, directory, filedata, namespace, paths, pfs, redo, strays, xattr
from hammerfs.fs.attributes import StatFs
from hammerfs.fs.context import Context, now_us
from hammerfs.fs.directory import Entry
from hammerfs.fs.flusher import Flusher
from hammerfs.fs.fsync import Fsync
from hammerfs.fs.headercheck import compare_header
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.lookup import lookup, parent_of
from hammerfs.fs.options import MountOptions
from hammerfs.fs.wiring import wire
from hammerfs.ondisk.address import Localization, ObjId, Tid, pfs_localization
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, MAX_TID, OBJID_ROOT, VERSION_DEDUP
from hammerfs.store.membership import dismiss_strangers, settle_counts
from hammerfs.store.recovery import recover_stage1
from hammerfs.store.volumes import VolumeSet

log = logging.getLogger("hammerfs.mount")


class FileSystem:
    """One mounted HAMMER file system.

    root -- the root directory of the mounted view
    read_only -- nothing may change: asked for, the past, a slave, or after a failure
    works -- how many pieces of work run beside the requests (`work.py`)
    bytes_read, bytes_written -- contents of files, since the mount
    requests_served -- tells how many requests whoever serves it has answered
    open_device -- opens a device to be added to it for writing, locked; None where that is not possible
    """

    open_device: Callable[[str], Device] | None = None

    def __init__(self, ctx: Context, options: MountOptions) -> None:
        self.ctx = ctx
        self.options = options
        self.works = self.bytes_read = self.bytes_written = 0
        self.requests_served: Callable[[], int] = int
        self.flusher = None if ctx.read_only else Flusher(ctx)
        self._fsync = None if self.flusher is None else Fsync(ctx, self.flusher)
        localization = pfs_localization(options.pfs)
        if options.pfs and pfs.load_pfs(ctx, localization) is None:
            raise NotHammerError(f"there is no PFS {options.pfs} in this file system")
        view = pfs.view_of(ctx, localization, MAX_TID if options.as_of is None else options.as_of)
        try:
            self.root = ctx.inodes.get(ctx, localization, OBJID_ROOT, view)
        except FileOperationError:
            raise NotHammerError(f"PFS {options.pfs} has no root directory at this moment") from None
        self._pending_limit = 2 * ctx.space.limit
        self._dirty_limit = max(options.cache_bytes // 2, 8 * 1024 * 1024)

    @classmethod
    def open(cls, devices: Sequence[Device], options: MountOptions, clock: Callable[[], int] = now_us) -> FileSystem:
        """Verify the volumes, recover from a crash, read the root; HammerError when that cannot be.

        A read-only mount, and one of the past, recovers in memory and never writes a byte.
        """
        read_only = options.read_only or options.as_of is not None
        if read_only:
            devices = [OverlayDevice(device) for device in devices]
        volumes = VolumeSet.open(devices, strangers=True)
        recovered = recover_stage1(volumes, collapse=True, keep_redo=options.as_of is None)
        for message in (*recovered.messages, *dismiss_strangers(volumes)):
            log.info("%s", message)
        if not read_only:
            settle_counts(volumes)
        if options.dedup and volumes.version < VERSION_DEDUP:
            raise UsageError(
                f"deduplication needs version {VERSION_DEDUP}, this file system has {volumes.version}: "
                "'hammer version-upgrade' raises it"
            )
        ctx = wire(volumes, options, read_only, clock, recovered)
        filesystem = cls(ctx, options)
        if filesystem.flusher is not None:
            compare_header(ctx)
        has_redo = recovered.redo_sync_offset is not None and options.as_of is None
        if has_redo:
            redo.replay(ctx, recovered)
        if filesystem.flusher is not None:
            if has_redo:
                filesystem.flusher.finish_recovery()
            strays.finish_unfinished(ctx)
        return filesystem

    # --- identity and state ---------------------------------------------------------------------
    @property
    def read_only(self) -> bool:
        """Whether nothing may change."""
        return self.ctx.read_only or self.root.read_only

    @property
    def label(self) -> str:
        """The volume label."""
        return self.ctx.root.header.label

    @property
    def fsid(self) -> uuid.UUID:
        """The file system's uuid."""
        return self.ctx.volumes.fsid

    @property
    def source(self) -> str:
        """What the file system is called by in tables of mounts: the device that never leaves it."""
        return self.ctx.volumes.root.device.name

    @property
    def keep_free(self) -> int:
        """Bytes that are to stay writable, as long as old snapshots can be given up for them."""
        options = self.options
        percent = options.keep_free_percent * self.ctx.root.total_bigblocks * BIGBLOCK_SIZE // 100
        return max(options.keep_free_bytes, percent)

    @property
    def failure(self) -> str | None:
        """What turned the mount read-only, None while all is well."""
        return None if self.flusher is None else self.flusher.failure

    @property
    def quiet(self) -> bool:
        """Whether nobody waits for the flusher, a barrier or an administrator's work."""
        flusher, fsync = self.flusher, self._fsync
        return not self.works and (flusher is None or fsync is None or (fsync.quiet and not flusher.running()))

    def know_waiting_requests(self, others_wait: Callable[[], bool]) -> None:
        """Learn whom to ask whether requests wait that could share a flush."""
        if self.flusher is not None:
            self.flusher.others_wait = others_wait

    @property
    def congested(self) -> bool:
        """Whether more changes should wait for the flusher (`throttle`)."""
        space = self.ctx.space
        return (
            space.records + len(self.ctx.dirty.setup) >= self._pending_limit
            or space.dirty_bytes >= self._dirty_limit
            or self.ctx.blocks.overfull
        )

    # --- synchronous operations -----------------------------------------------------------------
    def inode(self, localization: Localization, obj_id: ObjId, as_of: Tid) -> Inode:
        """The inode of that identity in that view; FileOperationError(ENOENT) when there is none."""
        return self.ctx.inodes.get(self.ctx, localization, obj_id, as_of)

    def lookup(self, parent: Inode, name: bytes) -> Inode:
        """The object called `name`; understands `.`, `..` and names with `@@`."""
        return lookup(self.ctx, parent, name)

    def parent(self, child: Inode) -> Inode:
        """The directory above a directory; a PFS root is its own."""
        return parent_of(self.ctx, child)

    def path_of(self, localization: Localization, obj_id: ObjId, as_of: Tid) -> tuple[bytes, ...] | None:
        """The names from the root to an object in any view; None when damage or the effort forbids to tell."""
        return paths.path_of(self.ctx, self.root, localization, obj_id, as_of)

    def create(
        self,
        parent: Inode,
        name: bytes,
        obj_type: int,
        mode: int,
        uid: int,
        gid: int,
        rmajor: int = 0,
        rminor: int = 0,
    ) -> Inode:
        """A new file, directory, fifo, device or socket."""
        inode = namespace.create(self.ctx, parent, name, obj_type, mode, uid, gid, rmajor, rminor)
        self._relieve()
        return inode

    def symlink(self, parent: Inode, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        """A new symlink."""
        inode = namespace.symlink(self.ctx, parent, name, target, uid, gid)
        self._relieve()
        return inode

    def link(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """One more name for `inode`."""
        namespace.link(self.ctx, inode, parent, name)
        self._relieve()

    def unlink(self, parent: Inode, name: bytes, *, hold: bool = False) -> Inode:
        """Remove a name; returns the object, which may have lost its last one, with `hold` as if by `opened`."""
        inode = namespace.unlink(self.ctx, parent, name, hold=hold)
        self._relieve()
        return inode

    def rmdir(self, parent: Inode, name: bytes, *, hold: bool = False) -> Inode:
        """Remove an empty directory; returns it, with `hold` as if by `opened`."""
        inode = namespace.rmdir(self.ctx, parent, name, hold=hold)
        self._relieve()
        return inode

    def rename(
        self, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, flags: int = 0, *, hold: bool = False
    ) -> Inode | None:
        """Move, replace or exchange; flags as in renameat2(2).  Returns what was replaced, with `hold` as if opened."""
        replaced = namespace.rename(self.ctx, parent, name, new_parent, new_name, flags, hold=hold)
        self._relieve()
        return replaced

    def readlink(self, inode: Inode) -> bytes:
        """A symlink's target."""
        return attributes.readlink(self.ctx, inode)

    def readdir(
        self, parent: Inode, cookie: int, damaged: Callable[[CorruptionError], None] | None = None
    ) -> Iterator[Entry]:
        """Entries after `cookie` (0: from the start), without `.` and `..`; an entry's key is its cookie.

        One that is damaged ends the listing with CorruptionError, or is told to `damaged` and left out.
        """
        return directory.scan(self.ctx, parent, cookie, damaged)

    @property
    def changes(self) -> int:
        """A number that moves with each change of anything that the front end shows of the present."""
        return self.ctx.dirty.changes + self.ctx.inodes.thaws

    def remembers_names(self, directory: Inode) -> bool:
        """Whether nothing but this front end changes a directory, which is sound as far as is known."""
        known = self.ctx.inodes.names.of(directory)
        return known is not None and not known.doubtful

    def setattr(
        self,
        inode: Inode,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_us: int | None = None,
        mtime_us: int | None = None,
        ctime_us: int | None = None,
    ) -> None:
        """Change attributes; times in microseconds since 1970."""
        attributes.setattr_(
            self.ctx,
            inode,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            atime_us=atime_us,
            mtime_us=mtime_us,
            ctime_us=ctime_us,
        )
        self._relieve()

    def read(self, inode: Inode, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        data = filedata.read(self.ctx, inode, offset, size)
        self.bytes_read += len(data)
        return data

    def correct_times(self, inode: Inode, mtime_us: int, ctime_us: int) -> None:
        """Have the times of the last change be these, unless they are on disk already."""
        attributes.correct_times(self.ctx, inode, mtime_us, ctime_us)

    def accessed(self, inode: Inode) -> None:
        """Note that somebody read an object; not worth waiting for a flusher that has too much to do."""
        if not self.options.noatime and not self.congested:
            attributes.accessed(self.ctx, inode)
            self._relieve()

    def write(self, inode: Inode, offset: int, data: bytes) -> int:
        """Write at `offset`; everything or an error."""
        namespace.writable(self.ctx, inode)
        try:
            written = filedata.write(self.ctx, inode, offset, data)
        except DeviceError as error:
            self._judge(error)
            raise
        self.bytes_written += written
        self._relieve()
        if inode.redo is not None and self._fsync is not None:
            self._fsync.anticipate(inode, self.options.fsync_mode)
        return written

    def _judge(self, error: DeviceError) -> None:
        """Data that a device refused to take is as serious here as it is in the flusher (INV-11)."""
        if error.action != "read" and self.flusher is not None:
            self.flusher.critical_error(error)
            self.flusher.raise_failure()

    def opened(self, inode: Inode) -> None:
        """An open handle keeps an object without a name alive."""
        inode.opens += 1
        if inode.as_of != MAX_TID:
            self.ctx.inodes.hold_view(inode)

    def released(self, inode: Inode) -> None:
        """A handle was closed; the last one of an object without a name lets it go."""
        inode.opens -= 1
        assert inode.opens >= 0
        if not inode.opens and inode.as_of != MAX_TID:
            self.ctx.inodes.let_view_go(inode)
        if not inode.opens and not inode.data.nlinks and not inode.read_only and not self.ctx.read_only:
            self.ctx.dirty.mark(inode, Dirty.INODE)
            namespace.abandon(self.ctx, inode)

    def release_all(self) -> None:
        """Close every handle, when whoever held them is gone."""
        for inode in self.ctx.inodes.opened():
            inode.opens = 1
            self.released(inode)

    def statfs(self) -> StatFs:
        """Space and inode counts."""
        return attributes.statfs(self.ctx)

    def getxattr(self, inode: Inode, name: bytes) -> bytes:
        """An extended attribute's value."""
        return xattr.get(self.ctx, inode, name)

    def setxattr(self, inode: Inode, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute."""
        xattr.set_(self.ctx, inode, name, value, flags)
        self._relieve()

    def listxattr(self, inode: Inode) -> list[bytes]:
        """The names of an object's extended attributes."""
        return xattr.names(self.ctx, inode)

    def removexattr(self, inode: Inode, name: bytes) -> None:
        """Remove an extended attribute."""
        xattr.remove(self.ctx, inode, name)
        self._relieve()

    # --- asynchronous operations ----------------------------------------------------------------
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the flusher until `close`."""
        if self.flusher is None:
            task_status.started()
            return
        await self.flusher.run(task_status=task_status)

    async def fsync(self, inode: Inode, datasync: bool = False) -> None:
        """Make everything acknowledged about an inode durable, names that lead to it included."""
        if self._fsync is not None:
            await self._fsync.run(inode, self.options.fsync_mode)

    async def throttle(self) -> None:
        """Wait until the flusher has caught up with the front end."""
        flusher = self.flusher
        while flusher is not None and self.congested:
            if flusher.failure is not None:
                return
            if self.ctx.blocks.overfull and self.ctx.blocks.behind is not None:
                await flusher.write_behind.wait_for_room()
            else:
                await flusher.wait(self._start_flush(flusher))

    async def make_room(self) -> bool:
        """Flush what is pending, for removals give their space back then, and promises are larger than what they take.

        False when nothing is pending, so that trying again is of no use.
        """
        flusher = self.flusher
        if flusher is None or not flusher.haswork():
            return False
        await flusher.sync()
        return True

    async def sync(self) -> None:
        """Flush everything durably."""
        if self.flusher is not None:
            await self.flusher.sync()

    async def close(self) -> None:
        """Flush everything durably, stop the flusher, close the devices."""
        flusher = self.flusher
        try:
            if flusher is not None and flusher.failure is None:
                if flusher.ended:  # it was cancelled between two cycles
                    flusher.flush_now()
                else:
                    await self._flush_or_take_over(flusher)
        finally:
            if flusher is not None:
                flusher.stop()
            self._close_volumes()

    @staticmethod
    async def _flush_or_take_over(flusher: Flusher) -> None:
        try:
            await flusher.flush_dirty()
        except FlushFailedError:
            if flusher.failure is not None or not flusher.ended:
                raise
            flusher.flush_now()  # it was cancelled, and ended only when the threads were done that it waited for

    def _close_volumes(self) -> None:
        with suppress(HammerError):  # it was told already; no thread may write to what is closed
            self.ctx.blocks.take_back()
        self.ctx.volumes.close()

    def close_now(self) -> None:
        """The same without an event loop, for offline work and tests."""
        try:
            if self.flusher is not None and self.flusher.failure is None:
                self.flusher.flush_now()
        finally:
            self._close_volumes()

    # --- pressure -------------------------------------------------------------------------------
    def _relieve(self) -> None:
        """Start a flush when a group's worth of changes is pending."""
        ctx = self.ctx
        if (
            ctx.space.records + len(ctx.dirty.setup) >= ctx.space.limit
            or ctx.space.dirty_bytes * 2 >= self._dirty_limit
        ):
            flusher = self.flusher
            if flusher is not None and not flusher.running():
                self._start_flush(flusher)

    @staticmethod
    def _start_flush(flusher: Flusher) -> int:
        flusher.queue(None)
        return flusher.async_()
