"""`hammer prune`, `reblock`, `rebalance`, `dedup` on volumes that nobody has mounted: words, cycle files, refusals."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from small_filesystem import fresh, make, mount, read

from hammerfs.cli.cycle_file import begin_numbers, keep_cycle, load_cycle
from hammerfs.cli.directive_reblock import rebalance_lines, reblock_lines
from hammerfs.cli.hammer import main
from hammerfs.cli.snapshot_links import parse_link, snapshot_links
from hammerfs.device.file import FileDevice
from hammerfs.fs import rootrecords
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.constants import BUFSIZE
from hammerfs.ondisk.cyclefile import CYCLE_SIZE, Cycle, pack_cycle, unpack_cycle
from hammerfs.ops.check import check_devices

Run = Callable[..., str]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of three versions, the first two of them snapshots: one on record, one by a softlink."""
    devices = fresh()
    fs = mount(devices)
    file = make(fs, fs.root, b"a", b"one" * 30_000)
    links = make(fs, fs.root, b"links")
    make(fs, fs.root, b"empty")
    assert fs.flusher is not None
    for number, content in enumerate([b"two", b"six", b"ten"]):
        fs.flusher.flush_now()
        tid = fs.ctx.root.next_tid
        if number == 0:
            fs.symlink(links, b"snap", b"/old/place/@@0x%016x" % tid, 0, 0)
        elif number == 1:
            rootrecords.add_snapshot(fs.ctx, 0, tid, fs.ctx.clock(), b"noted")
        fs.write(file, 0, content * 30_000)
    fs.close_now()
    path = tmp_path / "small.img"
    with path.open("wb") as target:
        target.truncate(devices[0].size)
        for index, page in devices[0]._pages.items():
            target.seek(index * BUFSIZE)
            target.write(page)
    return path


@pytest.fixture
def hammer(image: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, code: int = 0) -> str:
        assert main(["-f", str(image), *words]) == code, capsys.readouterr().err
        told = capsys.readouterr()
        return told.out if not code else told.err

    return run


def opened(image: Path) -> FileSystem:
    return FileSystem.open([FileDevice(str(image), writable=False)], MountOptions(read_only=True))


def assert_sound(image: Path) -> None:
    device = FileDevice(str(image), writable=False)
    report = check_devices([device])
    device.close()
    assert report.clean, report.problems[:3]


def versions(image: Path) -> int:
    """How many versions of data there are."""
    fs = opened(image)
    low, high = b"\0" * 30, b"\xff" * 30
    count = sum(element[32:34] == b"\x10\0" for element in fs.ctx.tree.scan(low, high))
    fs.close_now()
    return count // 6


def test_prune_keeps_softlinks_and_records(image: Path, hammer: Run) -> None:
    assert versions(image) == 4
    told = hammer("prune", "/links").splitlines()
    assert told[0].startswith("TID ")
    assert told[1] == f"TID {1:016x} - {told[0].split()[1]}"
    assert told[2] == "Prune /: 2 snapshots"
    assert told[3] == "Prune /: objspace 8000000000000000:0000 7fffffffffffffff:ffff pfs_id 0"
    assert told[4] == "Prune /: prune_min is 0d/00:00:00"
    assert told[5] == "Prune / succeeded"
    assert told[6].startswith("Pruned ")
    assert versions(image) == 4
    assert_sound(image)


def test_prune_with_what_is_on_record_alone(image: Path, hammer: Run) -> None:
    assert "1 snapshots" in hammer("softprune", "/empty")
    assert versions(image) == 3
    told = json.loads(hammer("--json", "prune", "/"))
    assert (told["command"], told["records"], told["interrupted"]) == ("prune", 0, False)


def test_a_softlink_names_the_pfs_that_is_pruned(image: Path, hammer: Run) -> None:
    hammer("pfs-master", "/pfs")
    hammer("snap", "/pfs/kept")
    assert "pfs_id 1\n" in hammer("prune", "/pfs")
    assert versions(image) == 4
    hammer("snap", "/links/too", "in the root")
    fs = opened(image)
    assert len(rootrecords.snapshots(fs.ctx, 0)) == 2
    fs.close_now()
    assert_sound(image)


def test_a_softlink_that_names_no_pfs_is_one_of_where_it_lies(image: Path, hammer: Run) -> None:
    hammer("pfs-master", "/pfs")
    device = FileDevice(str(image), writable=True)
    fs = FileSystem.open([device], MountOptions(pfs=1))
    # As one reads that was made where the PFS was mounted by itself.
    fs.symlink(fs.root, b"kept", b"/old/place/@@0x%016x" % fs.ctx.root.next_tid, 0, 0)
    fs.close_now()
    device.close()
    assert "pfs_id 1\n" in hammer("prune", "/pfs")
    assert versions(image) == 4


def test_the_softlink_of_a_slave_is_no_snapshot(image: Path, hammer: Run) -> None:
    """It reads as one, `@@0x...:00001`, with the TID that the slave is shown at."""
    hammer("pfs-slave", "/slave", "sync-end-tid=0x0000000100000400")
    told = hammer("prune", "/")
    assert "Prune /: 1 snapshots\n" in told
    assert "pfs_id 0\n" in told


def test_softlinks_of_two_pfss_are_refused(image: Path, hammer: Run) -> None:
    hammer("pfs-master", "/pfs")
    hammer("snapshot", "/pfs", "/links/other")
    assert "only one HAMMER filesystem" in hammer("prune", "/links", code=1)
    assert versions(image) == 4


def test_prune_everything_forgets_the_snapshots_too(image: Path, hammer: Run) -> None:
    assert hammer("prune-everything", "/").splitlines()[0] == "Prune /: EVERYTHING"
    assert versions(image) == 1
    fs = opened(image)
    assert rootrecords.snapshots(fs.ctx, 0) == []
    assert read(fs, b"a") == b"ten" * 30_000
    fs.close_now()
    assert_sound(image)
    assert main(["-f", str(image), "prune", "/empty"]) == 0


def test_without_snapshots_nothing_is_pruned(image: Path, hammer: Run, capsys: pytest.CaptureFixture[str]) -> None:
    hammer("prune-everything", "/")
    assert main(["-f", str(image), "prune", "/empty"]) == 0
    told = capsys.readouterr()
    assert told.out == "Prune /empty: 0 snapshots\n"
    assert told.err == "No snapshots found\n"


def test_reblock_rebalance_and_dedup_keep_what_is_there(image: Path, hammer: Run) -> None:
    for words in (["reblock", "/"], ["reblock-data", "/", "95%"], ["reblock-btree", "/"], ["reblock-inodes", "/"],
                  ["reblock-dirs", "/"], ["rebalance", "/", "50"], ["dedup", "/"], ["-A", "reblock", "/"]):  # fmt: skip
        assert " / succeeded\n" in hammer(*words)
    assert "Simulated dedup ratio = 1.50\n" in hammer("dedup-simulate", "/")
    fs = opened(image)
    assert read(fs, b"a") == b"ten" * 30_000
    fs.close_now()
    assert_sound(image)
    assert versions(image) == 4


def test_a_run_says_where_it_starts_before_it_does(image: Path, hammer: Run, tmp_path: Path) -> None:
    lowest = "8000000000000000"
    assert hammer("reblock", "/", "80").splitlines()[:3] == [
        f"reblock start {lowest}:0000",
        "free level 1677722/8388608",
        "Reblock / succeeded",
    ]
    for word, kind in (("btree", 0), ("inodes", 1), ("dirs", 2), ("data", 2)):
        assert hammer(f"reblock-{word}", "/").startswith(f"reblock start {lowest}:{kind:04x}\nfree level 0/8388608\n")
    assert hammer("rebalance", "/").startswith(f"rebalance start {lowest}:0000\nRebalance / succeeded\n")
    for word in ("reblock", "rebalance"):
        keep_cycle(str(tmp_path / "cycle"), Cycle(2, 0x100000010))
        told = hammer("-c", str(tmp_path / "cycle"), word, "/")
        assert told.startswith(f"{word} start 0000000100000010:0002\n")
        assert json.loads(hammer("--json", word, "/"))["command"] == word


@pytest.mark.parametrize(
    "words",
    [
        ["prune"],
        ["prune", "/", "/"],
        ["prune-everything"],
        ["reblock"],
        ["reblock", "/", "101"],
        ["reblock", "/", "x"],
        ["reblock", "/", "1", "2"],
        ["rebalance", "/", "49"],
        ["dedup"],
        ["dedup-simulate", "/", "/"],
    ],
)
def test_wrong_arguments_show_the_usage(hammer: Run, words: list[str]) -> None:
    assert hammer(*words, code=1).startswith("hammer: usage: hammer ")


def test_a_cycle_file_carries_an_interrupted_run_on(image: Path, hammer: Run, tmp_path: Path) -> None:
    path = tmp_path / "cycle"
    keep_cycle(str(path), Cycle(2, 0x100000010))
    told = json.loads(hammer("-c", str(path), "--json", "reblock-data", "/"))
    assert told["position"][1] >= 0x100000010
    assert not path.exists()


def test_a_cycle_file_is_one_of_dragonfly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = pack_cycle(Cycle(2, -5, 0x77))
    assert len(raw) == CYCLE_SIZE == 48
    assert (raw[:8], raw[36:40], raw[40:48]) == (b"\xfb" + b"\xff" * 7, b"\2\0\0\0", b"\x77" + bytes(7))
    assert unpack_cycle(raw) == Cycle(2, -5, 0x77)
    assert unpack_cycle(raw[:40]) == Cycle(2, -5)
    path = tmp_path / "cycle"
    assert load_cycle(None) is None
    assert load_cycle(str(path)) is None
    assert begin_numbers(str(path)) == []
    path.write_bytes(b"old")
    assert load_cycle(str(path)) is None
    assert "clearing old version" in capsys.readouterr().err
    assert not path.exists()
    assert load_cycle(str(tmp_path)) is None
    keep_cycle(str(tmp_path), Cycle(1, 1))
    told = capsys.readouterr().err
    assert "read failed" in told
    assert "Unable to write" in told


def test_snapshot_links(tmp_path: Path) -> None:
    (tmp_path / "snap").symlink_to("/mnt/@@0x0000000100000030")
    (tmp_path / "other").symlink_to("/mnt/elsewhere")
    (tmp_path / "file").write_text("@@0x0000000100000030")
    os.utime(tmp_path / "snap", (1, 1000), follow_symlinks=False)
    assert [(link.name, link.base, link.tid, link.seconds) for link in snapshot_links(str(tmp_path))] == [
        ("snap", "/mnt/", 0x100000030, 1000)
    ]
    relative = parse_link("s", "/snaps", "../d/@@0x0000000100000030:00002", 31, 5)
    assert relative is not None
    assert (relative.base, relative.place, relative.tid) == ("/snaps/../d/", "/snaps/../d/@@-1:00002", 0x100000030)
    assert parse_link("s", "/snaps", "/mnt/@@PFS00001", 15, 5) is None
    made_by_hand = parse_link("s", "/mnt", "@@0x0000000100000030:00002", 26, 5)
    assert made_by_hand is not None
    assert made_by_hand.place == "/mnt/@@-1:00002"
    assert parse_link("pfs", "/mnt", "@@0x0000000100000030:00002", 10, 5) is None


def test_reports_in_the_words_of_hammer() -> None:
    result = {"nodes": 3, "nodes_moved": 1, "records": 5, "records_moved": 2, "size": 700, "size_moved": 300,
              "damaged": 1, "interrupted": True, "position": [2, 0x100000010]}  # fmt: skip
    assert list(reblock_lines(result, "/mnt")) == [
        "Reblock /mnt interrupted by timer at 0000000100000010:0002",
        "Reblocked:",
        "    1/3 B-Tree nodes",
        "    4096/12288 B-Tree bytes",
        "    2/5 data elements",
        "    300/700 data bytes",
        "    1 data elements are damaged and were left where they are",
    ]
    result = {"scanned": 9, "removed": 2, "filled": 3, "interrupted": False}
    assert list(rebalance_lines(result, "/mnt")) == [
        "Rebalance /mnt succeeded",
        "Rebalance:",
        "    9 B-Tree nodes scanned",
        "    2 B-Tree nodes deleted",
        "    0 collision retries",
        "    3 B-Tree nodes rebalanced",
    ]
