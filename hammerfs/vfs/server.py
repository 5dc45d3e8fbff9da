"""The life of one mount: from the first request to the last byte on disk.

The order matters at both ends.  Recovery is over before anything is mounted, and whoever waits is told "ready" only
after the root directory has answered through the kernel.  At the end the kernel lets go first (its dirty pages come to
us as ordinary writes while it unmounts, so the server must keep answering), then everything is flushed durably, then
the devices are closed and with them the locks given up: whoever gets the lock next finds a clean file system.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Final

import pyfuse3
import trio

from hammerfs.errors import HammerError, UsageError
from hammerfs.fs.mount import FileSystem
from hammerfs.vfs import dispatch
from hammerfs.vfs.control import ControlServer, ControlSocket
from hammerfs.vfs.daemon import unmount_on_signals
from hammerfs.vfs.heap import keep_freed_memory, seldom_look_for_cycles
from hammerfs.vfs.kerneltuning import tune_kernel
from hammerfs.vfs.mountpoint import unmount
from hammerfs.vfs.mounttable import mount_at
from hammerfs.vfs.operations import HammerOperations
from hammerfs.vfs.readiness import Readiness, verify_root_answers
from hammerfs.vfs.serverfile import ServerNote, end_note, note_path, runtime_folder, write_note
from hammerfs.vfs.spacekeeper import SpaceKeeper
from hammerfs.vfs.wakefulness import Wakefulness, needed_latency

log = logging.getLogger(__name__)

WORKERS_MIN: Final = 20
"""Workers kept waiting: with a single one, pyfuse3 would start and end another around nearly every request."""


class UnflushedError(HammerError):
    """The server ends, but not everything that it had accepted is on disk."""


def serve(
    operations: HammerOperations,
    mountpoint: str,
    source: str,
    kernel_options: Iterable[str],
    readiness: Readiness,
    *,
    powersave: bool = False,
) -> None:
    """Mount, report readiness, answer requests until unmounted, and return when everything is on disk.

    `mountpoint` comes from `prepare_mountpoint`.  With `powersave` the processors may sleep between two requests.
    Raises UsageError when the kernel refuses the mount, UnflushedError when something could not be written.  The file
    system is closed in every case.
    """
    fs = operations.fs
    keep_freed_memory()
    seldom_look_for_cycles()
    wakefulness = Wakefulness(None if powersave else needed_latency())
    if dispatch.install(lambda: fs.quiet, wakefulness.burst):
        fs.know_waiting_requests(dispatch.request_waits)
        fs.requests_served = lambda: dispatch.statistics().requests
    try:
        _mount(operations, mountpoint, source, kernel_options)
    except BaseException:
        wakefulness.close()
        fs.close_now()
        raise
    control = _open_control(str(fs.fsid))
    note = _leave_note(mountpoint, control)
    try:
        failure = trio.run(_serve_until_unmounted, operations, mountpoint, readiness, control, wakefulness)
    finally:
        wakefulness.close()
        if control is not None:
            control.close()
        # Does nothing when the kernel has unmounted already.
        pyfuse3.close(unmount=True)
    end_note(note, failure)
    if failure is None:
        return
    raise UnflushedError(f"{source}: not everything could be brought to disk: {failure}")


def _mount(operations: HammerOperations, mountpoint: str, source: str, kernel_options: Iterable[str]) -> None:
    options = {"subtype=hammer", _fsname(source), *kernel_options}
    if operations.fs.read_only:
        options.add("ro")
    with _stderr_caught() as said:
        try:
            pyfuse3.init(operations, mountpoint, options)
            return
        except RuntimeError as error:
            said.seek(0)
            lines = os.fsdecode(said.read()).splitlines() or [str(error)]
    raise UsageError(f"cannot mount on {mountpoint}: {lines[-1].rpartition(': ')[2]}")


@contextmanager
def _stderr_caught() -> Iterator[IO[bytes]]:
    """libfuse says on standard error why it cannot mount; catch it, to say it in our own sentence."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)


class _OptionText(str):
    """pyfuse3 encodes options as ASCII, but a path may hold any bytes."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return super().encode(sys.getfilesystemencoding(), "surrogateescape")


def _fsname(source: str) -> str:
    """The option that makes the source column 1 of /proc/mounts; libfuse splits options at commas."""
    return _OptionText("fsname=" + source.replace("\\", "\\\\").replace(",", "\\,"))


def _open_control(fsid: str) -> ControlSocket | None:
    try:
        return ControlSocket(runtime_folder(os.geteuid()), fsid)
    except (OSError, UsageError) as error:
        log.warning("the file system cannot be administered while it is mounted: %s", error)
        return None


def _leave_note(mountpoint: str, control: ControlSocket | None) -> Path | None:
    mounted = mount_at(mountpoint)
    if mounted is None:
        return None
    path = note_path(mounted.device, os.geteuid())
    try:
        write_note(path, ServerNote.of_this_process(control=None if control is None else str(control.path)))
    except (OSError, UsageError) as error:
        log.warning("'hammerfs umount' will not be able to wait for this server: %s", error)
        return None
    return path


async def _serve_until_unmounted(
    operations: HammerOperations,
    mountpoint: str,
    readiness: Readiness,
    control: ControlSocket | None,
    wakefulness: Wakefulness,
) -> str | None:
    """Returns why something could not be written, or None.  Whatever ends the serving, everything is flushed."""
    failure = None
    async with trio.open_nursery() as nursery:
        await nursery.start(operations.fs.run)
        try:
            await _answer_requests(operations, mountpoint, readiness, control, wakefulness)
        finally:
            with trio.CancelScope(shield=True):
                operations.session_ended()
                failure = await _close(operations.fs)
        nursery.cancel_scope.cancel()
    return failure


async def _answer_requests(
    operations: HammerOperations,
    mountpoint: str,
    readiness: Readiness,
    control: ControlSocket | None,
    wakefulness: Wakefulness,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wakefulness.run)
        if control is not None:
            server = ControlServer(operations.fs, operations.inode_of, operations.present_names.forget)
            nursery.start_soon(server.serve, control)
        if operations.fs.keep_free and not operations.fs.read_only:
            nursery.start_soon(SpaceKeeper(operations.fs, operations.present_names.forget).run)
        await nursery.start(unmount_on_signals, partial(unmount, mountpoint))
        nursery.start_soon(_report_readiness, mountpoint, readiness)
        await _answer_until_the_end()
        nursery.cancel_scope.cancel()


async def _answer_until_the_end() -> None:
    """Return when the kernel has no more requests: unmounted, or the connection given up.

    A request that was on its way just when the last user of a mount point that is gone ended comes as ECONNABORTED, as
    does everything after an administrator's write to /sys/fs/fuse/connections/N/abort.
    """
    try:
        await pyfuse3.main(min_tasks=WORKERS_MIN)
    except* OSError as errors:
        _, others = errors.split(lambda error: isinstance(error, OSError) and error.errno == errno.ECONNABORTED)
        if others is not None:
            raise others from None


async def _report_readiness(mountpoint: str, readiness: Readiness) -> None:
    """Ask for the root directory as any user would; in a thread, since the answer has to come from this one.

    A root that does not answer ends the server as failed, but not where it is unmounted already: it may have users,
    whom it serves to the end.
    """
    try:
        await trio.to_thread.run_sync(verify_root_answers, mountpoint, abandon_on_cancel=True)
    except HammerError:
        if mount_at(mountpoint) is not None:
            raise
        readiness.missed(f"{mountpoint}: unmounted again before it could be used")
        return
    tune_kernel(mountpoint)
    readiness.ready()


async def _close(fs: FileSystem) -> str | None:
    try:
        await fs.close()
    except (HammerError, OSError) as error:
        return fs.failure or str(error)
    return fs.failure
