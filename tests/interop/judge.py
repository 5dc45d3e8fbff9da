"""Trees as manifests describe them: what a mounted file system shows, written down in the same words, and compared.

A manifest's entry is a flat dictionary; `observe` makes the same one of an inode.  Times come from two places: the raw
fields of the inode record, and what stat(2) would be told, which on read-only mounts is another thing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hammerfs.device.base import Device
from hammerfs.device.file import FileDevice
from hammerfs.device.overlay import OverlayDevice
from hammerfs.fs.inode import Inode
from hammerfs.fs.metadata import read_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.constants import (
    LOCALIZE_INODE,
    OBJTYPE_BDEV,
    OBJTYPE_CDEV,
    OBJTYPE_DIRECTORY,
    OBJTYPE_FIFO,
    OBJTYPE_REGFILE,
    OBJTYPE_SOCKET,
    OBJTYPE_SOFTLINK,
    RECTYPE_INODE,
)
from hammerfs.ondisk.element import LeafElement, base_key, unpack_leaf
from hammerfs.ondisk.inode import InodeData, uuid_to_id
from hammerfs.ops.check import check_devices

Manifest = dict[str, Any]
Entry = dict[str, Any]
Tree = dict[str, Entry]

TYPES = {
    OBJTYPE_DIRECTORY: "dir",
    OBJTYPE_REGFILE: "file",
    OBJTYPE_SOFTLINK: "symlink",
    OBJTYPE_FIFO: "fifo",
    OBJTYPE_SOCKET: "socket",
    OBJTYPE_CDEV: "chr",
    OBJTYPE_BDEV: "blk",
}
CRASHED = [f"g3-crash-{name}" for name in ("allmeta", "nohdr", "partialundo", "reblock", "reorder17", "twice", "undo")]
CRASHED += [f"g3-crash-{name}" for name in ("v1", "v3", "v4", "v6", "wrap", "wrap-nohdr")]
"""Golden images of file systems that need recovery, by UNDO alone."""
WITH_REDO = ["g4-crash-redo", "g4-crash-redo-ext", "g4-crash-redo-v4"]
"""Those that need REDO, too."""
READ_ONLY = MountOptions(read_only=True)
READ_SIZE = 777_777
"""An odd size, so that reads begin and end anywhere in a block."""
SHOWN = 20
"""Differences that a failing test prints."""


def text(name: bytes) -> str:
    """A name as manifests write it."""
    return name.decode("utf-8", "surrogateescape")


def raw(path: str) -> bytes:
    """A manifest's path or name as the bytes on disk."""
    return path.encode("utf-8", "surrogateescape")


def as_tree(entries: Iterable[Entry]) -> Tree:
    """A manifest's list of entries by path."""
    return {entry["path"]: entry for entry in entries}


def stored(fs: FileSystem, inode: Inode) -> tuple[LeafElement, InodeData]:
    """An inode's B-tree element and its raw record, in the inode's own view."""
    base = base_key(inode.localization | LOCALIZE_INODE, inode.obj_id, RECTYPE_INODE, 0)
    found = fs.ctx.tree.find_as_of(base, inode.as_of)
    assert found is not None, f"inode {inode.obj_id:#x} is shown but not stored"
    element = unpack_leaf(found)
    return element, InodeData.unpack(read_record(fs.ctx, element))


def contents(fs: FileSystem, inode: Inode, size: int = READ_SIZE) -> Iterator[bytes]:
    """A file's bytes in pieces of `size`."""
    offset = 0
    while piece := fs.read(inode, offset, size):
        yield piece
        offset += len(piece)


def digest(fs: FileSystem, inode: Inode) -> str:
    """SHA-256 of a file's contents."""
    state = hashlib.sha256()
    for piece in contents(fs, inode):
        state.update(piece)
    return state.hexdigest()


def shown(fs: FileSystem, inode: Inode, path: str) -> Entry:
    """What users see of an object; `stat_mtime_us` and `stat_ctime_us` are the times that they are told."""
    data = inode.data
    entry: Entry = {
        "path": path,
        "type": TYPES[data.obj_type],
        "mode": f"{data.mode:04o}",
        "uid": uuid_to_id(data.uid),
        "gid": uuid_to_id(data.gid),
        "nlink": data.nlinks,
        "size": data.size,
        "stat_mtime_us": data.mtime,
        "stat_ctime_us": data.ctime,
    }
    if data.obj_type == OBJTYPE_REGFILE:
        entry["sha256"] = digest(fs, inode)
    elif data.obj_type == OBJTYPE_SOFTLINK:
        entry["target"] = text(fs.readlink(inode))
    elif data.obj_type == OBJTYPE_DIRECTORY:
        entry["entries"] = sum(1 for _ in fs.readdir(inode, 0))
    elif data.obj_type in (OBJTYPE_CDEV, OBJTYPE_BDEV):
        entry["rmajor"], entry["rminor"] = data.rmajor, data.rminor
    return entry


def observe(fs: FileSystem, inode: Inode, path: str) -> Entry:
    """An object the way a manifest describes it, with what only the disk knows; it has to be flushed."""
    element, record = stored(fs, inode)
    entry = shown(fs, inode, path)
    del entry["stat_ctime_us"]
    return {
        **entry,
        "mtime_us": record.mtime,
        "ctime_us": record.ctime,
        "atime_us": record.atime,
        "objid": f"{inode.obj_id:#018x}",
        "uflags": record.uflags,
        "inode_create_tid": f"{element.create_tid:#018x}",
        "localization": f"{inode.localization:#010x}",
        "parent_objid": f"{record.parent_obj_id:#018x}",
    }


def walk(fs: FileSystem, top: Inode, path: str = "") -> Iterator[tuple[str, Inode]]:
    """Everything from `top` on with its path; each name is listed and looked up, and both have to agree."""
    yield path or "/", top
    if not top.is_directory:
        return
    for entry in list(fs.readdir(top, 0)):
        inode = fs.lookup(top, entry.name)
        assert (inode.obj_id, inode.localization, inode.data.obj_type) == entry[2:], f"{path}/{text(entry.name)}"
        if inode.is_directory:
            assert fs.lookup(inode, b"..") is top
        yield from walk(fs, inode, f"{path}/{text(entry.name)}")


def view(
    fs: FileSystem, top: Inode | None = None, describe: Callable[[FileSystem, Inode, str], Entry] = observe
) -> Tree:
    """The tree below `top` (the mount's root), the way a manifest or a model describes it."""
    return {path: describe(fs, inode, path) for path, inode in walk(fs, top or fs.root)}


def find(fs: FileSystem, path: str, top: Inode | None = None) -> Inode:
    """The object at a manifest's path."""
    inode = top or fs.root
    for name in raw(path).split(b"/"):
        if name:
            inode = fs.lookup(inode, name)
    return inode


def differences(expected: Tree, seen: Tree, ignore: Collection[str] = ()) -> list[str]:
    """Where two trees differ, one sentence each; empty when they agree in all but the ignored fields."""
    found = [f"{path}: missing" for path in expected.keys() - seen.keys()]
    found += [f"{path}: not expected" for path in seen.keys() - expected.keys()]
    for path in expected.keys() & seen.keys():
        want, have = expected[path], seen[path]
        for field in (want.keys() | have.keys()) - set(ignore):
            if want.get(field) != have.get(field):
                found.append(f"{path}: {field} is {have.get(field)!r}, not {want.get(field)!r}")
    return sorted(found)[:SHOWN]


class LastingOverlay(OverlayDevice):
    """An overlay that outlives the mounts made on it; `drop` ends it."""

    def close(self) -> None:
        """What was written stays, for the next mount."""

    def drop(self) -> None:
        """Forget what was written and close the device below."""
        super().close()


class Golden:
    """Opens golden images by their manifest's name; `stack` closes them.

    The images themselves are never written to: what a mount writes stays in memory.
    """

    def __init__(self, load: Callable[[str], Manifest], unpack: Callable[[str], Path], stack: ExitStack) -> None:
        self.manifest = load
        self._unpack = unpack
        self._stack = stack

    def devices(self, name: str) -> list[LastingOverlay]:
        """Writable devices for a manifest's volumes, for any number of mounts one after the other."""
        files = [volume["file"].removesuffix(".zst") for volume in self.manifest(name)["volumes"]]
        devices = [LastingOverlay(FileDevice(str(self._unpack(file)), writable=False)) for file in files]
        for device in devices:
            self._stack.callback(device.drop)
        return devices

    def mount(self, name: str, options: MountOptions = READ_ONLY) -> FileSystem:
        """The file system on devices of its own."""
        return FileSystem.open(self.devices(name), options)


@contextmanager
def closing(fs: FileSystem) -> Iterator[FileSystem]:
    """Unmount, without an event loop, when the block is left."""
    try:
        yield fs
    finally:
        fs.close_now()


def problems(devices: Sequence[Device]) -> list[str]:
    """What `check` finds on devices that were unmounted."""
    report = check_devices([OverlayDevice(device) for device in devices])
    assert not report.recovery_pending, "an unmounted file system needs no recovery"
    return [str(problem) for problem in report.problems]


def sha256(image: Path) -> str:
    """SHA-256 of a whole file."""
    with image.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
