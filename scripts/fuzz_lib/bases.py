"""The sound images that hostile ones are made from, each a different state of a small file system.

They are written by hammerfs itself, once, and kept in `tests/corpus/`: so that a saved find goes on meaning the same
image while hammerfs changes what it writes.  In the format's own geometry they are made anew each time; their
structures are the same and stand in the same order.
"""

from __future__ import annotations

import itertools
import json
import lzma
import uuid
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import trio

from fuzz_lib.geometry import is_small
from fuzz_lib.image import Image
from hammerfs.device.memory import MemoryDevice
from hammerfs.fs.cycle import run_steps
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.address import encode
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BTREE_INTERNAL,
    BTREE_LEAF,
    BTREE_NONE,
    BUFSIZE,
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    NODE_SIZE,
    OBJID_ROOT,
    OBJTYPE_CDEV,
    OBJTYPE_DIRECTORY,
    OBJTYPE_FIFO,
    OBJTYPE_REGFILE,
    RECORD_ZONES,
    RECTYPE_INODE,
    RECTYPE_PFS,
    ZONE_BTREE,
    ZONE_META,
)
from hammerfs.ondisk.element import (
    BASE,
    ROOT_LEFT_BOUNDARY,
    ROOT_RIGHT_BOUNDARY,
    InternalElement,
    element_key,
    record_element,
    unpack_leaf,
)
from hammerfs.ondisk.inode import InodeData
from hammerfs.ondisk.node import pack_node
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData
from hammerfs.ops.check_btree import TreeWalk
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_report import Report
from hammerfs.ops.check_usage import Usage
from hammerfs.ops.mkfs import FormatRequest, plan_format, write_file_system
from hammerfs.ops.progress import SilentProgress
from hammerfs.store.volumes import VolumeSet

CORPUS = Path(__file__).resolve().parents[2] / "tests" / "corpus"
IMAGES = CORPUS / "images.xz"
BIGBLOCKS = 48
START_US = 1_700_000_000_000_000
FSID = uuid.UUID("3f0c1d52-7a51-4f0e-8c39-00a0c9e5b0f1")
TID = 0x100000010
LEAF_FANOUT, INTERNAL_FANOUT = 6, 3
FANOUT_OF_TWO = 12, 4
FEW_FANOUT = 4
MANY = 9
"""Files that make the one leaf of a small file system two, and the second lie where its zone appends."""

Volumes = list[MemoryDevice]


def formatted(version: int, count: int = 1) -> Volumes:
    """Fresh volumes with the smallest FIFO."""
    size = BIGBLOCKS * BIGBLOCK_SIZE
    request = FormatRequest(
        "hostile", version=version, undo_size=BIGBLOCK_SIZE, fsid=FSID, time_ns=START_US * 1000, force=True
    )
    plan = plan_format(request, [size] * count)
    devices = [MemoryDevice(size, name=f"volume{number}") for number in range(count)]
    write_file_system(plan.layout, devices)
    return devices


def mounted(devices: Volumes) -> FileSystem:
    """The volumes mounted for writing, with a clock that is the same each time."""
    options = MountOptions(xattr=True, flush_seconds=1e6, cache_bytes=8 << 20)
    return FileSystem.open(devices, options, clock=itertools.count(START_US, 1000).__next__)


def make(fs: FileSystem, parent: Inode, name: bytes, content: bytes) -> Inode:
    """A file."""
    inode = fs.create(parent, name, OBJTYPE_REGFILE, 0o644, 1000, 1000)
    fs.write(inode, 0, content)
    return inode


def populate(fs: FileSystem) -> None:
    """One of each: files of each kind of block, links, a long symlink, special files, attributes."""
    folder = fs.create(fs.root, b"folder", OBJTYPE_DIRECTORY, 0o755, 1000, 1000)
    deeper = fs.create(folder, b"deeper", OBJTYPE_DIRECTORY, 0o755, 1000, 1000)
    small = make(fs, fs.root, b"small", bytes(range(100)))
    make(fs, folder, b"blocks", b"0123456789abcdef" * 2500)
    make(fs, deeper, b"deep.file-name", b"deep")
    fs.link(small, folder, b"small too")
    fs.symlink(fs.root, b"short link", b"folder/blocks", 0, 0)
    fs.symlink(deeper, b"long link", b"../" * 20 + b"small", 0, 0)
    fs.create(deeper, b"pipe", OBJTYPE_FIFO, 0o600, 0, 0)
    fs.create(deeper, b"device", OBJTYPE_CDEV, 0o600, 0, 0, 1, 3)
    fs.setxattr(small, b"user.colour", b"green")
    fs.create(folder, b"empty", OBJTYPE_DIRECTORY, 0o700, 0, 0)


def plain(version: int) -> Volumes:
    """A file system that was unmounted."""
    devices = formatted(version)
    fs = mounted(devices)
    populate(fs)
    fs.close_now()
    return devices


def few(version: int) -> Volumes:
    """As little as has a file, a directory and a link, looked at in a third of the time; a change meets most of it."""
    devices = formatted(version)
    fs = mounted(devices)
    small = make(fs, fs.root, b"small", bytes(range(100)))
    folder = fs.create(fs.root, b"folder", OBJTYPE_DIRECTORY, 0o755, 1000, 1000)
    fs.link(small, folder, b"small too")
    fs.symlink(folder, b"link", b"../small", 0, 0)
    fs.close_now()
    return devices


def few_and_deep(version: int) -> Volumes:
    """The same in a tree of very few elements a node, with a past."""
    devices = few(version)
    fs = mounted(devices)
    fs.write(fs.lookup(fs.root, b"small"), 10, b"changed")
    fs.close_now()
    rebuild(Image(devices), [], FEW_FANOUT, FEW_FANOUT)
    return devices


def history(version: int) -> Volumes:
    """Changed and deleted files, each state flushed."""
    devices = plain(version)
    fs = mounted(devices)
    small = fs.lookup(fs.root, b"small")
    for round_ in range(3):
        fs.write(small, 10 * round_, b"round %d" % round_)
        gone = make(fs, fs.root, b"passing %d" % round_, b"x" * 50)
        assert fs.flusher is not None
        fs.flusher.flush_now()
        if gone.data.nlinks:
            fs.unlink(fs.root, b"passing %d" % round_)
    fs.setattr(fs.lookup(fs.lookup(fs.root, b"folder"), b"blocks"), size=20_000)
    fs.close_now()
    return devices


def crashed(version: int) -> Volumes:
    """A cycle was written and not closed: the next mount rolls it back."""
    return unclosed(plain(version))


def unclosed(devices: Volumes) -> Volumes:
    """Volumes after one more cycle that was written and not closed."""
    fs = mounted(devices)
    make(fs, fs.root, b"rolled back", b"y" * 3000)
    fs.unlink(fs.root, b"small")
    flusher = fs.flusher
    assert flusher is not None
    group = flusher.queue(None)
    flusher.start_group(group)
    flusher.sync_group(group)
    run_steps(fs.ctx, flusher.cycle.finalize(final=True))
    return [device.copy() for device in devices]


def fsynced(version: int) -> Volumes:
    """Fast fsyncs left REDO for the next mount."""
    devices = plain(version)
    fs = mounted(devices)
    copies: Volumes = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            small = fs.lookup(fs.root, b"small")
            for round_ in range(4):
                fs.write(small, 90 * round_, b"redo %d" % round_)
                await fs.fsync(small)
            fs.setattr(small, size=200)
            await fs.fsync(small)
            copies.extend(device.copy() for device in devices)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return copies


def two_volumes(version: int) -> Volumes:
    """Two volumes with some of everything on both: nodes, meta-data, data, freemap."""
    devices = formatted(version, 2)
    fs = mounted(devices)
    populate(fs)
    fs.close_now()
    _go_on_in_volume(devices, 1)
    with mock.patch(
        "hammerfs.store.blockmap.APART_BIGBLOCKS_MIN", 1 << 40
    ):  # or nodes go on beside others of their group
        _populate_more(devices)
    rebuild(Image(devices), [], *FANOUT_OF_TWO)
    return devices


def _populate_more(devices: Volumes) -> None:
    fs = mounted(devices)
    folder = fs.create(fs.root, b"second", OBJTYPE_DIRECTORY, 0o755, 1000, 1000)
    beyond = make(fs, folder, b"beyond", b"on the second volume" * 20)
    make(fs, folder, b"large", b"fedcba9876543210" * 1100)
    fs.link(beyond, fs.root, b"beyond too")
    fs.setxattr(beyond, b"user.colour", b"blue")
    fs.write(fs.lookup(fs.root, b"small"), 50, b"changed on the other volume")
    for number in range(MANY):
        make(fs, folder, b"many %d" % number, b"one of many %d" % number)
    fs.close_now()


def _go_on_in_volume(devices: Volumes, number: int) -> None:
    """Let each zone append in a big-block of its own of that volume, as if those before it were full."""
    image = Image(devices)
    header = image.header()
    for place, zone in enumerate(RECORD_ZONES, 1):
        header.blockmap(zone).next_offset = encode(zone, number, place * BIGBLOCK_SIZE)
    image.put_header(header)
    image.seal()


def with_pfs(version: int) -> Volumes:
    """A second master, and a slave."""
    devices = plain(version)
    image = Image(devices)
    added = []
    for number, flags, tid in ((1, 0, 0), (2, 1, TID + 0x1000)):
        data = PfsData(bytearray(PFS_DATA_SIZE))
        data.mirror_flags = flags
        data.sync_end_tid = tid
        added.append(record(image, LOCALIZE_MISC, OBJID_ROOT, RECTYPE_PFS, number << 16, 0, data.copy()))
        inode = InodeData(mode=0o755, obj_type=OBJTYPE_DIRECTORY, cap_flags=5, nlinks=1)
        local = number << 16 | LOCALIZE_INODE
        added.append(record(image, local, OBJID_ROOT, RECTYPE_INODE, 0, OBJTYPE_DIRECTORY, inode.pack()))
    rebuild(image, added, 63, 62)
    fs = mounted(devices)
    fs.symlink(fs.root, b"pfs one", b"@@PFS00001", 0, 0)
    fs.symlink(fs.root, b"pfs two", b"@@PFS00002", 0, 0)
    root = fs.inode(1 << 16, OBJID_ROOT, (1 << 64) - 1)
    make(fs, root, b"in the pfs", b"pfs" * 50)
    fs.close_now()
    return devices


def deep(version: int) -> Volumes:
    """The same in a tree of few elements a node."""
    devices = history(version)
    rebuild(Image(devices), [], LEAF_FANOUT, INTERNAL_FANOUT)
    return devices


def record(image: Image, local: int, obj_id: int, rec_type: int, key: int, obj_type: int, data: bytes) -> bytes:
    """A meta-data record's element, its data placed."""
    offset = image.allocate(ZONE_META, data)
    checksum = image.data_crc(rec_type, data)
    return record_element(local, obj_id, rec_type, key, TID, 1, obj_type, offset, len(data), checksum)


def rebuild(image: Image, added: list[bytes], leaf_fanout: int, internal_fanout: int) -> None:
    """Write the B-tree anew, with further records, and so many elements a node; the old nodes' space is reused."""
    volumes = VolumeSet.open(image.devices)
    walk = TreeWalk(ImageReader(volumes), Usage(), Report(), SilentProgress())
    leaves = list(walk.leaves())
    records = sorted([element.pack() for leaf in leaves for element in leaf.elements] + added, key=element_key)
    extra = sum(unpack_leaf(raw).rec_type == RECTYPE_INODE for raw in added)
    spare = sorted(_old_nodes(image))
    mirror_tid = image.header().vol0_next_tid

    def place() -> int:
        return spare.pop(0) if spare else image.allocate(ZONE_BTREE, bytes(NODE_SIZE))

    groups = [records[at : at + leaf_fanout] for at in range(0, len(records), leaf_fanout)]
    level = [(place(), group[0], BTREE_LEAF, b"".join(group), len(group)) for group in groups]
    plans = list(level)
    parents: dict[int, int] = {}
    while len(level) > 1:
        above = []
        for at in range(0, len(level), internal_fanout):
            part = level[at : at + internal_fanout]
            left = ROOT_LEFT_BOUNDARY if at == 0 else part[0][1]
            last = at + internal_fanout >= len(level)
            right = ROOT_RIGHT_BOUNDARY if last else level[at + internal_fanout][1]
            offset = place()
            parents.update({child[0]: offset for child in part})
            body = _internal(part, left, right, mirror_tid)
            above.append((offset, part[0][1], BTREE_INTERNAL, body, len(part)))
        plans += above
        level = above
    for offset, _, kind, body, count in plans:
        image.write(offset, pack_node(image.version, parents.get(offset, 0), count, kind, mirror_tid, body))
    assert not spare, "fewer nodes than before"
    header = image.header()
    header.vol0_btree_root = level[0][0]
    header.vol0_stat_inodes += extra
    image.put_header(header)
    image.seal()


def _internal(part: list[tuple[int, bytes, int, bytes, int]], left: bytes, right: bytes, mirror_tid: int) -> bytes:
    packed = []
    for index, (offset, first, kind, _, _) in enumerate(part):
        obj_id, key, create, _, rec_type, _, _, local = BASE.unpack_from(left if index == 0 else first)
        packed.append(InternalElement(obj_id, key, create, 0, rec_type, 0, kind, local, mirror_tid, offset).pack())
    obj_id, key, create, _, rec_type, _, _, local = BASE.unpack_from(right)
    packed.append(InternalElement(obj_id, key, create, 0, rec_type, 0, BTREE_NONE, local, 0, 0).pack())
    return b"".join(packed)


def _old_nodes(image: Image) -> list[int]:
    found = []
    waiting = [image.header().vol0_btree_root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if image.read(node + 20, 1)[0] == BTREE_INTERNAL:
            waiting += [int.from_bytes(element[48:56], "little") for element in image.elements(node)]
    return found


RECIPES: dict[str, Callable[[], Volumes]] = {
    "plain7": lambda: plain(7),
    "plain1": lambda: plain(1),
    "plain4": lambda: plain(4),
    "history7": lambda: history(7),
    "crashed7": lambda: crashed(7),
    "crashed3": lambda: crashed(3),
    "pfs7": lambda: with_pfs(7),
    "deep7": lambda: deep(7),
    "deep5": lambda: deep(5),
    "fsynced7": lambda: fsynced(7),
    "two7": lambda: two_volumes(7),
    "twocrashed7": lambda: unclosed(two_volumes(7)),
    "few7": lambda: few(7),
    "few2": lambda: few(2),
    "fewdeep7": lambda: few_and_deep(7),
    "fewcrashed7": lambda: unclosed(few(7)),
    "fewcrashed4": lambda: unclosed(few(4)),
}


def save() -> None:
    """Add the base images that the corpus lacks: sizes and page numbers, then the pages, compressed.

    Those that are there stay as they are, since finds name structures in them by their order.
    """
    assert is_small(), "the corpus holds images of the small geometry"
    kept = load() if IMAGES.exists() else {}
    index: dict[str, list[list[int]]] = {}
    pages = []
    for name, recipe in RECIPES.items():
        index[name] = []
        for device in kept.get(name) or recipe():
            starts = [at for at in range(0, device.size, BUFSIZE) if device.read(at, BUFSIZE).strip(b"\0")]
            index[name].append([device.size, *starts])
            pages += [device.read(start, BUFSIZE) for start in starts]
    CORPUS.mkdir(exist_ok=True)
    raw = json.dumps(index).encode() + b"\n" + b"".join(pages)
    IMAGES.write_bytes(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))


def load() -> dict[str, Volumes]:
    """All base images by name."""
    if not is_small():
        return {name: recipe() for name, recipe in RECIPES.items()}
    head, _, pages = lzma.decompress(IMAGES.read_bytes()).partition(b"\n")
    images: dict[str, Volumes] = {}
    for name, volumes in json.loads(head).items():
        images[name] = []
        for number, (size, *starts) in enumerate(volumes):
            device = MemoryDevice(size, name=f"volume{number}")
            for start in starts:
                device.write(start, pages[:BUFSIZE])
                pages = pages[BUFSIZE:]
            images[name].append(device)
    return images
