"""A bit flips in any structure: what is read is true or an error, and only what hangs on it is lost (INV-10).

Outside of every CRC, by the format, lie an inode's mtime and atime.  The volume header has a CRC, but the original
leaves it stale, so nobody can insist on it; a header that leads astray meets the CRCs of what it leads to.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

import crashed_base
import pyfuse3
import pytest
from crash_lib.twin import Node, State, Twin, view
from faulty_run import READ_ONLY_LINE, logged
from handlers import USER, call
from small_filesystem import DIRECTORY, FILE, fresh, make, mount, read, recorded
from structures import Structure, flipped, flips, structures
from test_filesystem_crash import flush_in_one_cycle

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import keep_all
from hammerfs.errors import CorruptionError, HammerError, NotHammerError
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import short_of
from hammerfs.ondisk.constants import BUFSIZE, MAX_TID, OBJID_ROOT
from hammerfs.ondisk.direntry import path_text
from hammerfs.ondisk.volume import UNDO_ARRAY_OFFSET
from hammerfs.ops.check import check_devices
from hammerfs.store.fiforeader import FifoReader
from hammerfs.store.recovery import find_range
from hammerfs.store.volumes import VolumeSet
from hammerfs.vfs.nodeids import ROOT_NODE_ID
from hammerfs.vfs.xattroperations import operations_for

Path = tuple[bytes, ...]
VOLUME_HEADER_USED = UNDO_ARRAY_OFFSET + 8
VOLUME_HEADER_NEXT_TID = 248


def planted(twin: Twin) -> None:
    """A tree with everything that has a structure of its own, deep enough for two levels of nodes."""
    source = random.Random(3)
    for number in range(4):
        directory = twin.create(twin.root, b"directory %d" % number, DIRECTORY)
        assert directory is not None
        for index in range(25):
            node = twin.create(directory, b"file %d" % index)
            assert node is not None
            if index % 5:
                twin.write(node, 0, source.randbytes(1 + source.randrange(9000)))
        twin.symlink(directory, b"long link", b"target/" * 60)
        twin.symlink(directory, b"short link", b"target")
    large = twin.create(twin.root, b"large")
    assert large is not None
    twin.write(large, 0, source.randbytes(5 * BUFSIZE + 100))
    twin.write(large, 1 << 20, source.randbytes(100_000))
    twin.set_xattr(large, b"user.name", b"value" * 100)
    twin.link(large, twin.root, b"large, too")


@lru_cache
def tree() -> tuple[MemoryDevice, Node]:
    """The image and the truth about it."""
    [device] = fresh()
    fs = mount([device], xattr=True)
    twin = Twin(fs)
    planted(twin)
    fs.close_now()
    return device, twin.root


@lru_cache
def found() -> list[Structure]:
    return list(structures(tree()[0]))


def of_kind(kind: str) -> list[Structure]:
    return [structure for structure in found() if structure.kind == kind]


# --- reading ------------------------------------------------------------------------------------
def own_state(state: State) -> State:
    """Everything about an object but what is below it."""
    return state[:-1] if state[0] != DIRECTORY else state[:4]


def losses(fs: FileSystem, root: Node, *, also: bytes = b"") -> Iterator[tuple[Path, CorruptionError]]:
    """Read everything; what cannot be read is yielded, what is read must be true.  The root may hold `also`, too."""
    for path, node in root.below():
        try:
            inode = fs.root
            for name in path:
                inode = fs.lookup(inode, name)
            if not node.is_directory:
                assert own_state(view(fs, inode)) == own_state(node.state()), path
                continue
            assert (inode.obj_id, inode.data.mode) == (node.obj_id, node.mode)
            damage: list[CorruptionError] = []
            listed = {entry.name for entry in fs.readdir(inode, 0, damage.append)} - {also}
            assert listed <= node.entries.keys()
            assert len(listed) + len(damage) == len(node.entries)
            yield from ((path, error) for error in damage)
        except CorruptionError as error:
            yield path, error


def opened(device: MemoryDevice, *, read_only: bool = True) -> FileSystem | None:
    """The file system on it, or None when it refuses to be mounted for a reason that it tells."""
    try:
        return mount([device], xattr=True, read_only=read_only)
    except (CorruptionError, NotHammerError):
        return None


def paths_of(root: Node, obj_id: int) -> list[Path]:
    return [path for path, node in root.below() if node.obj_id == obj_id]


def is_below(path: Path, tops: list[Path]) -> bool:
    return any(path[: len(top)] == top for top in tops)


@pytest.mark.parametrize("kind", ["inode", "data", "symlink target", "extended attribute"])
def test_a_flip_in_a_record_costs_that_object_and_nothing_else(kind: str) -> None:
    """The error names the structure and where it is, and for data the file and the place in it."""
    device, root = tree()
    for structure in of_kind(kind)[:: 1 if kind != "data" else 2]:
        [bit] = flips(structure, 1)
        fs = opened(flipped(device, bit))
        if fs is None:
            assert structure.obj_id == OBJID_ROOT, "only the root directory is needed to mount"
            continue
        lost = list(losses(fs, root))
        assert lost, f"bit {bit} of {structure} was not noticed"
        for path, error in lost:
            assert is_below(path, paths_of(root, structure.obj_id))
            assert error.errno == errno.EIO
            assert error.offset == structure.data_offset
            if kind == "data":
                assert f"object {structure.obj_id:#x} at file offset {structure.file_offset}" in str(error)


def test_a_flip_in_a_directory_entry_costs_that_name_and_nothing_else() -> None:
    device, root = tree()
    for structure in of_kind("directory entry")[::2]:
        [bit] = flips(structure, 1)
        fs = opened(flipped(device, bit))
        assert fs is not None
        lost = list(losses(fs, root))
        [directory] = paths_of(root, structure.obj_id)
        assert [path for path, _ in lost].count(directory) == 1, "the listing is incomplete, and says so"
        names = {path[: len(directory) + 1] for path, _ in lost if path != directory}
        assert len(names) == 1
        assert all(error.offset == structure.data_offset for _, error in lost)


META_DATA = ["node header", "node elements", "layer 1", "layer 2"]


@pytest.mark.parametrize("kind", META_DATA)
def test_a_flip_in_meta_data_is_never_read_as_truth(kind: str) -> None:
    """Whoever reads files does not need the freemap."""
    device, root = tree()
    for structure in of_kind(kind):
        for bit in flips(structure, 4 if kind.startswith("node") else 1):
            fs = opened(flipped(device, bit))
            noticed = fs is None or bool(list(losses(fs, root)))
            assert noticed == kind.startswith("node")


def test_the_check_finds_a_flip_in_every_structure() -> None:
    device, _ = tree()
    for kind in sorted({structure.kind for structure in found()}):
        for structure in of_kind(kind)[:: max(1, len(of_kind(kind)) // 4)]:
            [bit] = flips(structure, 1)
            report = check_devices([flipped(device, bit)])
            assert not report.clean, f"bit {bit} of {structure}"
            if structure.obj_id:
                said = "\n".join(map(str, report.problems))
                assert f"{structure.obj_id:016x}" in said
                assert f"{structure.data_offset:016x}" in said
                [problem] = {item for item in report.problems if f"{structure.data_offset:016x}" in str(item)}
                assert problem.path in map(path_text, paths_of(tree()[1], structure.obj_id))
                assert problem.owner is not None
                assert problem.owner.file_offset == (structure.file_offset if kind == "data" else None)


def test_the_check_names_files_when_part_of_the_tree_is_lost() -> None:
    """As far as entries that are left lead to them, else by number."""
    device, root = tree()
    [bit] = flips(of_kind("data")[-1], 1)
    lost = 0
    for node in of_kind("node header"):
        report = check_devices([flipped(flipped(device, bit), node.place * 8)])
        for problem in report.problems:
            if problem.kind == "file data":
                assert problem.owner is not None
                assert problem.path in {None, *map(path_text, paths_of(root, problem.owner.obj_id))}
                lost += problem.path is None
    assert lost


# --- what the log says --------------------------------------------------------------------------
def lines_of_reading(device: MemoryDevice, path: Path, size: int) -> list[str]:
    """What a mount logs while everything about a path is asked for, as the kernel does."""
    with logged() as lines:
        fs = opened(device)
        assert fs is not None
        operations = operations_for(fs)
        node_id = pyfuse3.InodeT(ROOT_NODE_ID)
        with suppress(pyfuse3.FUSEError):
            for name in path:
                node_id = call(operations.lookup(node_id, pyfuse3.FileNameT(name), USER)).st_ino
            for request in (
                operations.read(pyfuse3.FileHandleT(node_id), 0, size),
                operations.readlink(node_id, USER),
                operations.getxattr(node_id, pyfuse3.XAttrNameT(b"user.name"), USER),
            ):
                with suppress(pyfuse3.FUSEError):
                    call(request)
    return lines


@pytest.mark.parametrize("kind", ["inode", "data", "symlink target", "extended attribute"])
def test_a_mount_that_meets_damage_names_the_path_and_the_place_in_the_file(kind: str) -> None:
    device, root = tree()
    for structure in [item for item in of_kind(kind) if item.obj_id != OBJID_ROOT][::5]:
        [bit] = flips(structure, 1)
        paths = paths_of(root, structure.obj_id)
        lines = lines_of_reading(flipped(device, bit), paths[0], 2 << 20)
        assert len(lines) == 1
        assert any(f" of {path_text(path)!r}: " in lines[0] for path in paths)
        assert lines[0].endswith(f" at {structure.data_offset:016x}")
        if kind == "data":
            assert f" at file offset {structure.file_offset} " in lines[0]


def test_a_file_whose_entry_is_damaged_too_is_named_by_its_number() -> None:
    device, root = tree()
    data = next(item for item in of_kind("data") if paths_of(root, item.obj_id)[0][0] == b"directory 2")
    [data_bit] = flips(data, 1)
    for entry in of_kind("directory entry"):
        [bit] = flips(entry, 1)
        image = flipped(flipped(device, data_bit), bit)
        with logged() as lines:
            fs = opened(image)
            assert fs is not None
            with suppress(pyfuse3.FUSEError):
                call(operations_for(fs).read(pyfuse3.FileHandleT(data.obj_id), data.file_offset, 1))
        named = f" of {path_text(paths_of(root, data.obj_id)[0])!r}: "
        if named not in lines[0]:
            assert f" of object {data.obj_id:#x}: " in lines[0]
            return
    pytest.fail("no entry was the file's")


# --- writing ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [*META_DATA, "volume header"])
def test_writing_to_a_damaged_file_system_damages_nothing_else(kind: str) -> None:
    """A change is refused, or turns the mount read-only, or succeeds; what was there is true afterwards or an error."""
    device, root = tree()
    header = [Structure("volume header", place, 8) for place in range(0, VOLUME_HEADER_USED, 8)]
    for structure in header if kind == "volume header" else of_kind(kind)[:12]:
        [bit] = flips(structure, 1)
        image = flipped(device, bit)
        with logged() as lines:
            fs = opened(image, read_only=False)
            if fs is None:
                continue
            changed = changes(fs)
        assert sum(READ_ONLY_LINE in line for line in lines) == (fs.failure is not None)
        again = opened(image)
        if again is not None:
            lost = list(losses(again, root, also=b"made"))
            assert not lost or kind != "layer 2", "files do not need the freemap"
            assert not changed or lost or read(again, b"made") == contents()


def contents() -> bytes:
    return random.Random(5).randbytes(3 * BUFSIZE)


def changes(fs: FileSystem) -> bool:
    """Make a file beside what is there, durably; whether that went well."""
    try:
        made = fs.create(fs.root, b"made", FILE, 0o644, 0, 0)
        fs.write(made, 0, contents())
        fs.close_now()
    except HammerError:
        return False
    return True


def test_overwriting_a_part_of_damaged_data_does_not_make_it_good() -> None:
    """The rest of the block has to be read first, and would get a fresh CRC."""
    device, _ = tree()
    for structure in of_kind("data")[::6]:
        [bit] = flips(structure, 1)
        image = flipped(device, bit)
        fs = opened(image, read_only=False)
        assert fs is not None
        inode = fs.inode(0, structure.obj_id, MAX_TID)
        with pytest.raises(CorruptionError, match="bad CRC"):
            fs.write(inode, structure.file_offset + 1, b"!")
        if structure.file_offset:
            with pytest.raises(CorruptionError, match="bad CRC"):
                fs.setattr(inode, size=structure.file_offset + 1)
        fs.close_now()
        again = opened(image)
        assert again is not None
        with pytest.raises(CorruptionError, match="bad CRC"):
            again.read(again.inode(0, structure.obj_id, MAX_TID), structure.file_offset, 10)


# --- after a crash ------------------------------------------------------------------------------
@lru_cache
def crashed() -> tuple[MemoryDevice, Node]:
    """A cycle is written but not closed, so that recovery takes it back: the truth is what was before it."""
    recording, log = recorded([tree()[0].copy()])
    fs = mount(recording, xattr=True)
    directory = fs.lookup(fs.root, b"directory 1")
    for number in range(25):
        fs.unlink(directory, b"file %d" % number)
        fs.create(fs.root, b"new %d" % number, FILE, 0o644, 0, 0)
    flush_in_one_cycle(fs)
    [image] = log.power_cut(len(log.entries), keep_all)
    return image, tree()[1]


def test_a_flip_in_the_undo_fifo_is_no_reason_to_recover_half() -> None:
    """The header knows how far the FIFO reaches, so a record that cannot be read is damage and not the end."""
    image, root = crashed()
    volumes = VolumeSet.open([image])
    span = find_range(volumes, FifoReader(volumes))
    assert span.length > 4096
    source = random.Random(8)
    refused = 0
    for _ in range(60):
        offset = span.first + source.randrange(span.length)
        place = volumes.root.header.vol_buf_beg + short_of(volumes.root.header.undo_to_zone2(offset))
        fs = opened(flipped(image, place * 8 + source.randrange(8)), read_only=bool(source.randrange(2)))
        if fs is None:
            refused += 1
        else:
            assert not list(losses(fs, root)), "recovered, but not as it was"
            assert {entry.name for entry in fs.readdir(fs.root, 0)} == root.entries.keys()
    assert refused > 30


@pytest.mark.parametrize("cycle", [True, False])
def test_a_flip_in_redo_is_refused_or_makes_no_difference(cycle: bool) -> None:
    """What fsync acknowledged is there to the byte, or nothing is.

    Of a REDO record in the last sector of a range whose end no header knows nobody can tell whether a power cut tore
    it. Then all that was laid with it, and what is behind that, may be missing, but never a part of one laying.
    """
    [image], root, states = crashed_base.crashed((tree()[0],), tree()[1], cycle=cycle)
    source = random.Random(9)
    noticed = torn = missing = 0
    for record in crashed_base.redo_records([image]):
        for _ in range(6):
            bit = source.randrange(record.start * 8, (record.start + record.size) * 8)
            fs = opened(flipped(image, bit), read_only=bool(source.randrange(2)))
            if fs is None:
                noticed += 1
            elif record.in_last_sector and not cycle:
                torn += 1
                found_state = view(fs, fs.root)
                assert found_state in states, f"bit {bit} of {record}"
                missing += found_state != states[-1]
            else:
                assert not list(losses(fs, root)), f"bit {bit} of {record}"
    assert noticed > 50
    assert bool(torn) == bool(missing) == (not cycle)


@pytest.mark.parametrize("version", [7, 3])
@pytest.mark.parametrize("nomirror", [False, True])
def test_a_next_tid_that_has_lost_a_bit_gives_nothing_out_again(version: int, nomirror: bool) -> None:
    """INV-8: object ids are TIDs, and a second file with the number of another one would show its contents."""
    [device] = fresh(version)
    fs = mount([device], nomirror=nomirror)
    for number in range(20):
        make(fs, fs.root, b"old %d" % number, b"content %d" % number)
    fs.close_now()
    used = {fs.lookup(fs.root, b"old %d" % number).obj_id for number in range(20)}
    place = VOLUME_HEADER_NEXT_TID * 8
    refused = []
    for bit in range(64):
        damaged = opened(flipped(device, place + bit), read_only=False)
        if damaged is None:
            refused.append(bit)
            continue
        assert make(damaged, damaged.root, b"new", b"").obj_id not in used
        assert damaged.ctx.alloc_tid() > max(used)
    assert {10, 32, 62, 63} <= set(refused), refused
    assert len(refused) < 10
