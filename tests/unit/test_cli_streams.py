"""Standard streams that are closed, full, or that nobody reads: real processes, as a shell starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_filesystem import formatted

PROGRAMS = {
    "hammerfs": "main",
    "hammer": "hammer",
    "undo": "undo",
    "mkfs_hammer": "mkfs",
    "mount.hammer": "mount_helper",
}
BUFFERING = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (device,) = formatted()
    path = tmp_path_factory.mktemp("streams") / "x.img"
    path.write_bytes(device.read(0, device.size))
    return path


def command(line: str, *arguments: object, unbuffered: str = "", **options: int) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which the first word is one of the programs and `$1` an argument."""
    program, _, rest = line.partition(" ")
    start = f"import sys; from hammerfs.cli.{PROGRAMS[program]} import main; sys.exit(main())"
    script = f'python=$1 start=$2; shift 2; "$python" -c "$start" {rest}'
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", sys.executable, start, *map(str, arguments)],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        text=True,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
    )


@BUFFERING
@pytest.mark.parametrize(
    "line", ["hammerfs --help", "hammer -h", "undo --help", "mount.hammer -h", "hammerfs check $1"]
)
def test_a_full_output_is_one_sentence(line: str, unbuffered: str, image: Path) -> None:
    done = command(f"{line} >/dev/full", image, unbuffered=unbuffered)
    said = "No space left on device" if unbuffered else "standard output: No space left on device"
    assert (done.stderr, done.returncode) == (f"{line.partition(' ')[0]}: {said}\n", 2)


def test_mkfs_says_so_too_with_its_own_code() -> None:
    done = command("mkfs_hammer --help >/dev/full")
    assert (done.stderr, done.returncode) == ("mkfs_hammer: standard output: No space left on device\n", 1)


@BUFFERING
@pytest.mark.parametrize(
    "line", ["hammerfs --help", "hammerfs check --help", "hammer -h", "mkfs_hammer --help", "undo -h"]
)
def test_nothing_is_said_when_the_reader_has_gone(line: str, unbuffered: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = command(line, unbuffered=unbuffered, stdout=write_end)
    finally:
        os.close(write_end)
    assert (done.stderr, done.returncode) == ("", 141)


def test_nor_when_who_reads_errors_has_gone() -> None:
    """Usage errors keep their code where nobody hears of them."""
    assert command("hammerfs check /nonexistent 2>/dev/full").returncode == 2
    assert command("hammerfs --frobnicate 2>/dev/full").returncode == 2
    assert command("hammerfs 2>/dev/full").returncode == 2


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "line",
    ["hammerfs --help", "hammer -h", "hammer -f $1 info", "hammerfs check $1", "hammer -f $1 snapls /", "undo -h"],
)
def test_a_closed_output_is_like_none(line: str, closed: str, image: Path) -> None:
    before = image.read_bytes()
    done = command(f"{line} {closed}", image)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert image.read_bytes() == before


def test_a_closed_input_answers_nothing(image: Path) -> None:
    """A question is answered with no."""
    done = command("hammer -f $1 pfs-destroy /1 <&-", image)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_errors_have_their_code_where_stderr_is_closed() -> None:
    for line in ("hammerfs check /nonexistent 2>&-", "hammerfs 2>&-", "hammerfs --frobnicate <&- >&- 2>&-"):
        assert command(line).returncode == 2


def test_what_is_opened_gets_no_number_of_a_standard_stream(tmp_path: Path) -> None:
    """It would be written by what prints.  Programs that we start get these streams, too."""
    script = """if True:
        import os, subprocess, sys
        from hammerfs.cli.errors import guarded
        def action():
            with open(sys.argv[1], "w") as file:
                print("printed", flush=True)
                print("told", file=sys.stderr)
                subprocess.run(["sh", "-c", "echo child && echo child >&2 && cat"], check=True)
                file.write(f"{file.fileno()} {sys.stdin.readline()!r}")
        sys.exit(guarded("test", action))
    """
    arguments = ["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script, tmp_path / "file"]
    assert subprocess.run(arguments, check=False).returncode == 0
    number, _, line = (tmp_path / "file").read_text().partition(" ")
    assert int(number) > 2
    assert line == "''"
