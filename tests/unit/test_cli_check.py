"""`hammerfs check` and the reports as commands: output, JSON, exit codes, progress; nothing is ever written."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from crafted_image import CraftedImage, sample

from hammerfs.cli.main import main
from hammerfs.cli.progress import INTERVAL, LineProgress, reporting
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, OBJTYPE_DIRECTORY, RECTYPE_DATA, RECTYPE_INODE, ZONE_UNAVAIL
from hammerfs.ondisk.freemap import Layer2
from hammerfs.ops.check import check_devices


@pytest.fixture
def crafted() -> CraftedImage:
    image = sample()
    image.finish()
    return image


def save(image: CraftedImage, folder: Path) -> Path:
    path = folder / "crafted.img"
    with path.open("wb") as file:
        for offset in range(0, image.device.size, 1 << 20):
            piece = image.device.read(offset, min(1 << 20, image.device.size - offset))
            if piece.strip(b"\0"):
                file.seek(offset)
                file.write(piece)
        file.truncate(image.device.size)
    return path


def test_a_clean_image(crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(crafted, tmp_path)
    before = path.read_bytes()
    assert main(["check", str(path)]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[:6] == [
        "volume headers: 1",
        "freemap: 24 big-blocks, 17 free",
        "UNDO FIFO: nothing to roll back",
        "B-tree: 4 nodes, 136 records",
        "file data: 32880 bytes verified",
        "names: 65 entries, 66 inodes, 2 PFSs",
    ]
    assert output.out.splitlines()[-1] == "clean"
    assert output.err == ""
    assert path.read_bytes() == before


def test_a_damaged_image(crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crafted.device.write(crafted.device_offset(crafted.leaves[1]) + 100, b"\xaa\x55")
    assert main(["check", str(save(crafted, tmp_path))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"problem: B-tree node at {crafted.leaves[1]:016x}: CRC mismatch" in lines
    assert lines[-1] == "1 problem found"


def test_json(crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crafted.device.write(crafted.device_offset(crafted.leaves[1]) + 100, b"\xaa\x55")
    assert main(["check", "--json", str(save(crafted, tmp_path))]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["format"] == "hammerfs/1"
    assert result["command"] == "check"
    assert result["clean"] is False
    assert result["problems"] == 1
    assert result["recovery_pending"] is False
    assert result["items"][0] == {
        "severity": "problem",
        "kind": "B-tree node",
        "where": f"{crafted.leaves[1]:016x}",
        "text": "CRC mismatch",
    }
    assert result["counts"]["B-tree nodes"] == 3


def test_damaged_data_and_records_are_named_by_path_and_place_in_the_file(
    crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = next(record for record in crafted.records if record.rec_type == RECTYPE_DATA and record.obj_id == 0x2000)
    inode = next(record for record in crafted.records if record.rec_type == RECTYPE_INODE and record.obj_id == 0x3007)
    for record in (data, inode):
        crafted.device.write(crafted.device_offset(record.data_offset) + 3, b"\x99")
    path = save(crafted, tmp_path)
    assert main(["check", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    told = f"data CRC mismatch in bytes 0 to 111 of object {data.obj_id:016x}, localization {data.localization:08x}"
    assert f"problem: file data at {data.data_offset:016x}: {told} ('/directory/small')" in lines
    [line] = [line for line in lines if line.startswith("problem: record") and f"{inode.data_offset:016x}" in line]
    assert line.endswith("('/directory/empty 7')")
    assert main(["check", "--json", str(path)]) == 1
    items = json.loads(capsys.readouterr().out)["items"]
    [item] = [item for item in items if item["kind"] == "file data"]
    assert item == {
        "severity": "problem",
        "kind": "file data",
        "where": f"{data.data_offset:016x}",
        "text": told,
        "pfs": 0,
        "object": "0000000000002000",
        "file_offset": 0,
        "path": "/directory/small",
    }
    [item] = [item for item in items if item["kind"] == "record" and f"{inode.data_offset:016x}" in item["text"]]
    assert (item["object"], item["path"]) == ("0000000000003007", "/directory/empty 7")
    assert "file_offset" not in item


def test_what_lies_in_a_pfs_is_named_by_the_way_there(
    crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inode = next(record for record in crafted.records if record.rec_type == RECTYPE_INODE and record.obj_id == 0x4000)
    crafted.device.write(crafted.device_offset(inode.data_offset) + 3, b"\x99")
    assert main(["check", str(save(crafted, tmp_path))]) == 1
    assert "('/@@-1:00001/in the pfs')" in capsys.readouterr().out


def test_a_directory_that_is_its_own_ancestor_has_no_path() -> None:
    image = sample()
    image.directory(0x5000, 0x5001)
    image.directory(0x5001, 0x5000)
    image.entry(0x5000, b"one", 0x5001, OBJTYPE_DIRECTORY)
    image.entry(0x5001, b"other", 0x5000, OBJTYPE_DIRECTORY)
    report = check_devices([image.finish()])
    [problem] = [problem for problem in report.problems if "its own ancestor" in problem.text]
    assert problem.owner is not None
    assert problem.path is None


def test_no_data(crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--no-data", str(save(crafted, tmp_path))]) == 0
    assert "file data: 0 bytes verified" in capsys.readouterr().out


def test_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(1 << 20))
    empty = tmp_path / "empty"
    empty.touch()
    for path in (other, empty, tmp_path / "absent", tmp_path):
        assert main(["check", str(path)]) == 2
        output = capsys.readouterr()
        assert output.err.count("\n") == 1
        assert str(path) in output.err
        assert output.out == ""


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("show", "inode size=100 nlinks=1 mode=00644"),
        ("show", 'dir-entry objid=0000000000002000 lo=00000000 name="small"'),
        ("show-undo", "3000000000000000 DUMMY(512)\tseq=00000000 > <"),
        ("blockmap", "  layer1 4000000000000000 @2000000000800000 blocks-free 17"),
        ("checkmap", "Collecting allocation info from B-Tree: done"),
    ],
)
def test_reports(
    crafted: CraftedImage, tmp_path: Path, verb: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(save(crafted, tmp_path))]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("vol_label\tCRAFTED\nvol_count\t1\n")
    assert words in output.out


def test_show_marks_what_is_wrong(crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inode = next(record for record in crafted.records if record.rec_type == RECTYPE_INODE)
    crafted.device.write(crafted.device_offset(inode.data_offset) + 3, b"\x99")
    crafted.device.write(crafted.device_offset(crafted.leaves[1]) + 26, b"\x99")
    raw = bytearray(crafted.node(crafted.root))
    raw[64 + 64 * 2 + 48 : 64 + 64 * 2 + 56] = ((8 << 60) | (1 << 45)).to_bytes(8, "little")
    crafted.write_node(crafted.root, bytes(raw))
    assert main(["show", str(save(crafted, tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"B    NODE {crafted.leaves[1]:016x}") for line in lines)
    assert any("error=BX" in line for line in lines)
    assert any(line.startswith("B----C- ELM  2") for line in lines)
    assert any("(IO ERROR)" in line for line in lines)
    assert lines[-3:] == ["2 bad nodes", "1 bad elms", "1 bad records"]


def test_checkmap_tells_differences(crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = next(number for number, entry in crafted.layer2.items() if entry.zone == 9)
    crafted.layer2[number].bytes_free += 16
    crafted._write_freemap()
    assert main(["checkmap", str(save(crafted, tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"BM\tblock={(2 << 60) | (number << 23):016x} zone=9 ") for line in lines)
    assert lines[-1] == "1 errors"


def test_blockmap_marks_what_is_wrong(
    crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer2 = (1 << 20) + (1 << 23)
    crafted.device.write(layer2 + 16 * 5, b"\x0b\0\0\0\0\0\0\xf0\0\0\0\xf0")
    assert main(["blockmap", str(save(crafted, tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("BAF     4000000002800000 zone=11") for line in lines)
    assert lines[-1] == "3 bad layer2"


def test_blockmap_ends_where_the_volume_does_whatever_its_freemap_holds(
    crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer2 = (1 << 20) + (1 << 23)
    crafted.device.write(layer2, b"\x0b" * BIGBLOCK_SIZE)
    assert main(["blockmap", str(save(crafted, tmp_path))]) == 0
    destroyed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BA")]
    assert len(destroyed) == crafted.bigblocks
    assert destroyed[-1].split()[1] == f"{(4 << 60) + (crafted.bigblocks - 1) * BIGBLOCK_SIZE:016x}"


def test_blockmap_goes_on_behind_a_big_block_that_is_marked_unavailable(
    crafted: CraftedImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["blockmap", str(save(crafted, tmp_path))]) == 0
    sound = capsys.readouterr().out.splitlines()
    crafted.layer2[5] = Layer2(ZONE_UNAVAIL, BIGBLOCK_SIZE, 0)
    crafted._write_freemap()
    assert main(["blockmap", str(save(crafted, tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [at for at, line in enumerate(lines) if " zone=15 " in line] == [sound.index(_line_of(sound, 5))]
    assert len(lines) == len(sound)


def _line_of(lines: list[str], bigblock: int) -> str:
    return next(line for line in lines if f" {(4 << 60) + bigblock * BIGBLOCK_SIZE:016x} zone=" in line)


# --- progress ----------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_short_work_prints_no_progress() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress.phase("B-tree", 100)
    for _ in range(100):
        progress.advance(1)
    assert stream.getvalue() == ""


def test_long_work_prints_a_line_every_interval() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress.phase("B-tree", 100)
    for _ in range(25):
        clock.now += 1
        progress.advance(1)
    progress.phase("names", 0)
    clock.now += INTERVAL
    progress.advance(7)
    assert stream.getvalue() == "B-tree: 10%\nB-tree: 20%\nnames: 7\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    with reporting(False, stream) as progress:
        progress.phase("B-tree", 10)
        progress.advance(5)
    assert "B-tree" in stream.getvalue()


def test_quiet_means_nothing() -> None:
    stream = Terminal()
    with reporting(True, stream) as progress:
        progress.phase("B-tree", 10)
        progress.advance(5)
    assert stream.getvalue() == ""
