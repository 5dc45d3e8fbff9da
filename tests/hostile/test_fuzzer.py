"""The fuzzer itself: that it can fail, that a seed means one image, and that what it makes reaches the code."""

from __future__ import annotations

import errno

import pytest
from fuzz_lib import directives, streams, walks
from fuzz_lib.campaign import Laboratory, run
from fuzz_lib.changes import Change, Program
from fuzz_lib.directives import DIRECTIVES, Turn, direct
from fuzz_lib.oracle import READS_MAX, Failure, GuardedDevice, check_sentence, signature
from fuzz_lib.walks import Probe, mount

from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import FileOperationError, HammerError
from hammerfs.fs import inodecache
from hammerfs.fs.context import Context
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.recorddata import verified_data
from hammerfs.ondisk.address import volume_of
from hammerfs.ondisk.constants import BUFSIZE, RECTYPE_DATA
from hammerfs.ondisk.element import LeafElement
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops import history, reblock
from hammerfs.ops.operation import Operation
from hammerfs.ops.registry import OPERATIONS
from hammerfs.vfs.nodeids import ROOT_NODE_ID


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    return Laboratory()


def test_sound_images_are_sound(laboratory: Laboratory) -> None:
    for name in laboratory.bases:
        kinds = laboratory.look(Program(name, []), "write")
        assert not [kind for kind in kinds if kind.startswith(("check", "Corruption"))], name


def test_directives_ask_for_every_operation_and_leave_a_sound_image_sound(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()

    def noted(name: str) -> Operation:
        asked.add(name)
        return OPERATIONS[name]

    for module in (directives, streams):
        monkeypatch.setattr(module, "find", noted)
    for base in ("pfs7", "two7"):
        devices = laboratory.build(Program(base, []))
        kinds: set[str] = set()
        turn = Turn(devices, kinds, walks.check(devices, kinds), walks.look(devices, kinds), laboratory.partner, 2)
        direct(turn, [name for name in DIRECTIVES if "wrong" not in name])
        assert not [kind for kind in kinds if kind.startswith(("check", "Corruption"))]
    assert asked == set(OPERATIONS) - {operation.name for operation in history.OPERATIONS}


def test_what_a_directive_does_to_files_is_noticed(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    """With data moved that is not what it was."""

    def zeroed(ctx: Context, leaf: LeafElement) -> bytes:
        return bytes(leaf.data_len) if leaf.rec_type == RECTYPE_DATA else verified_data(ctx, leaf)

    monkeypatch.setattr(reblock, "verified_data", zeroed)
    error = laboratory.failure(Program("plain7", []))
    assert isinstance(error, Failure)
    assert "was sound and is not any more" in str(error)
    assert "by the directive 'reblock'" in error.__notes__


def test_a_seed_is_one_image(laboratory: Laboratory) -> None:
    one, two = (laboratory.build(laboratory.program("seed:5")) for _ in range(2))
    assert all(a.same_bytes(b) for a, b in zip(one, two, strict=True))
    assert laboratory.program("seed:5") != laboratory.program("seed:6")


def test_bases_of_two_volumes_have_something_of_everything_on_both(laboratory: Laboratory) -> None:
    for name in ("two7", "twocrashed7"):
        atlas = laboratory.atlases[name]
        for kind in ("header", "node", "leaf", "inode", "entry", "data", "layer2"):
            assert {volume_of(place) for place in atlas.places[kind]} == {0, 1}, (name, kind)


def test_a_crashed_base_is_rolled_back_on_both_volumes(laboratory: Laboratory) -> None:
    before = laboratory.build(Program("twocrashed7", []))
    after = [device.copy() for device in before]
    mount(after).close_now()
    starts = [VolumeHeader(device.read(0, BUFSIZE)).vol_buf_beg for device in before]
    for one, two, start in zip(before, after, starts, strict=True):
        assert one.read(start, one.size - start) != two.read(start, two.size - start)


def test_only_chosen_bases_are_tried(laboratory: Laboratory) -> None:
    chosen = Laboratory(["two7", "deep5"])
    assert {chosen.program(f"some:{number}").base for number in range(20)} == {"two7", "deep5"}
    assert {laboratory.program(f"some:{number}").base for number in range(200)} == set(laboratory.bases)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["field", "header", 1, "no", ["=", 0], True], "NotHammerError: volume# and volume# are both volume #"),
        (["field", "header", 1, "fsid", ["^", 1], True], "NotHammerError: volume# belongs to another file system"),
        (["field", "header", 0, "count", ["=", 3], True], "NotHammerError: volume # of # missing"),
        (["lend", 0, 1, False], "NotHammerError: volume# and volume# are both volume #"),
        (["tear", 1, 0, False], "NotHammerError: volume# is not a HAMMER volume: its signature is #"),
        (["volumes", [0]], "NotHammerError: volume # of # missing"),
        (["field", "internal", 0, "subtree", ["v", 2], True], "CorruptionError: reference to volume #"),
        (["field", "layer1", 1, "phys", ["v", 0], True], "check: freemap layer 1: says"),
    ],
)
def test_what_is_wrong_between_volumes_is_said(laboratory: Laboratory, change: Change, sentence: str) -> None:
    kinds = laboratory.look(Program("two7", [change]), "show")
    assert any(kind.startswith(sentence) for kind in kinds), sorted(kinds)


def test_a_change_reaches_the_code_behind_the_checksums(laboratory: Laboratory) -> None:
    program = Program("plain7", [["field", "leaf", 3, "data_len", ["=", -1], True]])
    kinds = laboratory.look(program, "show")
    assert not [kind for kind in kinds if "CRC" in kind]
    assert any("record with impossible data" in kind for kind in kinds)


def test_a_defect_is_found_and_shrunk(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the check of an inode's size taken away, the size does not fit stat(2)'s field."""
    monkeypatch.setattr(inodecache, "MAX_FILE_SIZE", (1 << 64) - 1)
    needed = ["field", "inode", 2, "size", ["=", -1], True]
    program = Program("plain7", [["remove", 0, 20], needed, ["swap", 0, 3, 3]])
    error = laboratory.failure(program, "show")
    assert isinstance(error, Failure)
    assert "OverflowError" in str(error)
    assert laboratory.shrunk(program, signature(error)).changes == [needed]


def test_a_run_tells_what_replays_a_failure(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_fs: FileSystem) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(FileSystem, "statfs", broken)
    tally = run(laboratory, "some", 2, None, lambda _tally: None)
    find = next(iter(tally.finds.values()))
    assert find.seed in ("some:0", "some:1")
    assert find.program.changes == []


def test_the_devices_notice_what_no_code_may_do() -> None:
    device = GuardedDevice(MemoryDevice(100_000), writable=False)
    with pytest.raises(Failure, match="outside of 100000"):
        device.read(99_999, 2)
    with pytest.raises(Failure, match="opened read-only"):
        device.write(0, b"x")
    with pytest.raises(Failure, match="outside of 100000"):
        GuardedDevice(MemoryDevice(100_000), writable=True).write(-1, b"x")
    device.reads = READS_MAX
    with pytest.raises(Failure, match="without an end"):
        device.read(0, 1)


@pytest.mark.parametrize("text", ["", " ", "two\nlines", "x" * 1000, "\x1b[2J"])
def test_an_error_has_to_say_something(text: str) -> None:
    with pytest.raises(Failure, match="says"):
        check_sentence(HammerError(text))
    check_sentence(FileOperationError(errno.ENOENT))


def test_a_name_that_cannot_be_does_not_hide_its_neighbours(laboratory: Laboratory) -> None:
    kinds: set[str] = set()
    shown = []
    for changes in ([], [["name", 0, b"a/b".hex(), False]]):
        fs = mount(laboratory.build(Program("plain7", changes)), read_only=True)
        shown.append({name for name, _, _ in Probe(fs, kinds).listing(ROOT_NODE_ID)})
        fs.close_now()
    assert len(shown[0] - shown[1]) == 1
    assert shown[1] < shown[0]
    assert any("directory entry with an impossible name" in kind for kind in kinds)
