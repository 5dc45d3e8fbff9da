"""Which volumes a command works on; `volume-add` and `volume-del` on unmounted images: questions, refusals, output."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from second_opinion import assert_original_agrees
from small_filesystem import FIFO_SIZE, make, mount, read

from hammerfs.cli import hammer
from hammerfs.cli.main import main
from hammerfs.cli.verb import split_specials
from hammerfs.device.file import FileDevice
from hammerfs.ops.check import check_devices
from hammerfs.ops.mkfs import FormatRequest, is_formatted, plan_format, write_file_system

MIB = 1024 * 1024
SIZE = 256 * MIB
CONTENT = os.urandom(MIB)

Run = Callable[..., str]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A file system of two volumes with something on both, and an image that may become a third."""
    paths = [tmp_path / f"{name}.img" for name in ("root", "second", "third")]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(SIZE)
    devices = opened(paths[:2])
    request = FormatRequest("TEST", undo_size=FIFO_SIZE, force=True)
    write_file_system(plan_format(request, [SIZE, SIZE]).layout, devices)
    fs = mount(devices)
    fs.ctx.blockmap.withhold(0)
    make(fs, fs.root, b"file", CONTENT)
    fs.close_now()
    return paths


def opened(paths: list[Path]) -> list[FileDevice]:
    return [FileDevice(str(path), writable=True) for path in paths]


def assert_sound(*paths: Path) -> None:
    """What is checked, and what the original says, when these are all volumes."""
    devices = opened(list(paths))
    report = check_devices(devices)
    assert report.clean, "\n".join(map(str, report.problems[:20]))
    assert not report.counts.get("notes")
    fs = mount(devices)
    assert read(fs, b"file") == CONTENT
    fs.close_now()
    assert_original_agrees(*paths)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs hammer(8) with these words; what it prints, or says when it has to end with `code`."""

    def run(*words: str | Path, code: int = 0) -> str:
        capsys.readouterr()
        assert hammer.main([*map(str, words)]) == code, capsys.readouterr().err
        output = capsys.readouterr()
        return output.out if code == 0 else output.err

    return run


def test_a_volume_is_added_and_another_one_removed(images: list[Path], run: Run) -> None:
    root, second, third = images
    both = f"{root}:{second}"
    assert run("-v", "-f", both, "volume-add", third, "/").splitlines() == [
        f"0\t{root} (Root Volume)",
        f"1\t{second}",
        f"2\t{third}",
    ]
    assert_sound(root, second, third)
    told = json.loads(run("-F", "--json", "-f", f"{both}:{third}", "volume-del", second, "/"))
    assert (told["command"], told["removed"], told["interrupted"]) == ("volume-del", True, False)
    assert [volume["device"] for volume in told["volumes"]] == [str(root), str(third)]
    assert told["used"] >= MIB
    assert_sound(root, third)
    (device,) = opened([second])
    assert not is_formatted(device)
    device.close()
    assert "is not a HAMMER volume" in run("-f", f"{root}:{second}:{third}", "info", "/", code=1)


def test_who_says_no_keeps_the_volume(images: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    root, second, _ = images
    specials = f"{root}:{second}"
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert "is not empty" in run("-f", specials, "volume-del", second, "/", code=1)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    asked = run("-f", specials, "volume-del", second, "/")
    assert f"do you want to reblock {second}? [y/n]" in asked
    assert asked.endswith(f"{root}\n")
    assert_sound(root)


def test_programs_are_not_asked(images: list[Path], run: Run) -> None:
    root, second, _ = images
    assert "is not empty" in run("--json", "-f", f"{root}:{second}", "volume-del", second, "/", code=1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("volume-del", "root.img", "/"), "is the root volume, which cannot be removed"),
        (("volume-del", "third.img", "/"), "is no volume of this file system"),
        (("volume-add", "second.img", "/"), "is already open in this process"),
        (("volume-add", "absent.img", "/"), "cannot open"),
        (("volume-add", "third.img"), "usage: hammer volume-add <device> <filesystem>"),
        (("volume-del",), "usage: hammer volume-del <device> <filesystem>"),
    ],
    ids=["root", "stranger", "twice", "absent", "arguments", "none"],
)
def test_refusals_are_sentences(images: list[Path], run: Run, words: tuple[str, ...], sentence: str) -> None:
    root, second, _ = images
    given = [word if "." not in word else str(root.with_name(word)) for word in words]
    code = 1 if "usage" in sentence else 2
    assert sentence in run("-f", f"{root}:{second}", *given, code=code)
    assert_sound(root, second)


def test_a_device_with_a_file_system_is_refused(images: list[Path], run: Run, tmp_path: Path) -> None:
    root, second, third = images
    (device,) = opened([third])
    write_file_system(plan_format(FormatRequest("OTHER", undo_size=FIFO_SIZE, force=True), [SIZE]).layout, [device])
    device.close()
    assert "holds a HAMMER volume already (OTHER)" in run("-f", f"{root}:{second}", "volume-add", third, "/", code=2)


def test_specials_are_split_at_colons_unless_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "with:colon").touch()
    assert split_specials(["a:b", "c"]) == ["a", "b", "c"]
    assert split_specials(["with:colon"]) == ["with:colon"]


@pytest.mark.parametrize("command", ["check", "show", "blockmap", "checkmap"])
def test_volumes_are_words_of_their_own_or_joined_by_colons(
    images: list[Path], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    root, second, _ = map(str, images)
    assert main([command, root, second]) == 0
    apart = capsys.readouterr().out
    assert main([command, f"{root}:{second}"]) == 0
    assert capsys.readouterr().out == apart
