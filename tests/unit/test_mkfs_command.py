"""The mkfs command: what it prints, its exit codes, and that a refusal leaves everything as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hammerfs.cli.mkfs import main
from hammerfs.device.file import FileDevice
from hammerfs.ondisk.constants import BUFSIZE
from hammerfs.ondisk.volume import VolumeHeader

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


def header(path: Path) -> VolumeHeader:
    with path.open("rb") as image:
        return VolumeHeader(image.read(BUFSIZE))


def test_a_small_image_is_made_and_the_choice_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "small.img"
    assert main(["-f", "-L", "SMALL", "--size", "300M", str(image)]) == 0
    told = capsys.readouterr()
    assert "undo-buffer-size:     16.00MB  (chosen by the size of volume 0, -u SIZE sets it)" in told.out
    assert "HAMMER version 7" in told.out
    assert told.err == ""
    assert image.stat().st_size == 300 * MIB
    assert image.stat().st_blocks * 512 < 40 * MIB
    assert header(image).label == "SMALL"
    assert str(header(image).vol_fsid) in told.out


def test_a_fifo_below_the_minimum_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-f", "-L", "X", "-u", "8M", "--size", "300M", str(tmp_path / "x.img")]) == 0
    told = capsys.readouterr()
    assert "undo-buffer-size:      8.00MB\n" in told.out
    assert told.err == "warning: the UNDO/REDO FIFO has less than 512 MiB, as -f permits\n"


def test_several_specials_become_one_file_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [tmp_path / f"{number}.img" for number in range(3)]
    uuid = "428e7f4e-f07e-614a-9eb5-e707305a8205"
    assert main(["-f", "-L", "ABC", "--size", "200M", "--fsid", uuid, *map(str, images)]) == 0
    headers = [header(image) for image in images]
    assert [(one.vol_no, one.vol_count) for one in headers] == [(0, 3), (1, 3), (2, 3)]
    assert {str(one.vol_fsid) for one in headers} == {uuid}
    assert "3 volumes total size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-L", "X"], "volume 0 would have less than 10 GiB of space; -f makes it nevertheless"),
        (["-f", "-L", ""], "must have a label that is not empty"),
        (["-f", "-L", "X", "-V", "8"], "version 8 is unknown"),
        (["-f", "-L", "X", "-u", "2G"], "at most 1 GiB"),
    ],
)
def test_a_refusal_is_one_sentence_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    new, existing = tmp_path / "new.img", tmp_path / "existing.img"
    existing.write_bytes(b"data")
    assert main([*arguments, "--size", "300M", str(existing), str(new)]) == 1
    told = capsys.readouterr()
    assert sentence in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert existing.read_bytes() == b"data"
    assert not new.exists()


def test_a_mounted_volume_is_refused_with_the_holders_pid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "held.img"
    image.touch()
    os.truncate(image, 300 * MIB)
    command = [sys.executable, str(ROOT / "mkfs_hammer.py"), "-f", "-L", "X", str(image)]
    holder = FileDevice(str(image), writable=True)
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    holder.close()
    assert refused.returncode == 1
    assert f"in use by process {os.getpid()}" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert image.stat().st_blocks == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x.img"],
        ["-L", "X"],
        ["-L", "X", "-u", "24", "x.img"],
        ["-L", "X", "-u", "many", "x.img"],
        ["-L", "X", "--fsid", "12", "x.img"],
        ["-L", "X", "--time", "noon", "x.img"],
        ["-L", "X", "-Z", "x.img"],
    ],
)
def test_arguments_that_make_no_sense_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_failed_write_removes_the_new_image(tmp_path: Path) -> None:
    """The file system under the image is full: simulated by a size limit on the process's files."""
    image = tmp_path / "new.img"
    script = (
        "import resource, signal, sys\n"
        "from hammerfs.cli.mkfs import main\n"
        "from hammerfs.ops import mkfs_specials\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "create = mkfs_specials._create\n"
        "def create_then_limit(path, size):\n"
        "    create(path, size)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, resource.RLIM_INFINITY))\n"
        "mkfs_specials._create = create_then_limit\n"
        f"sys.exit(main(['-f', '-L', 'X', '--size', '300M', {str(image)!r}]))\n"
    )
    failed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "cannot write" in failed.stderr
    assert "File too large" in failed.stderr
    assert not image.exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    told = capsys.readouterr().out
    assert "-L LABEL" in told
    assert "examples:" in told


def test_the_command_starts_without_the_fuse_stack() -> None:
    script = "import sys, hammerfs.cli.mkfs; print(sorted({'pyfuse3', 'trio', 'rich'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
