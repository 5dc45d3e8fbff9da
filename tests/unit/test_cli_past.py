"""`ls --deleted`, `log`, `diff` and `restore` on an image: output, JSON, what comes back, what is refused."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from past_image import PastImage, make

from hammerfs.cli.main import main
from hammerfs.cli.moment import parse_time, tid_text

pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> PastImage:
    return make(tmp_path_factory.mktemp("past") / "past.img")


def run(image: PastImage, verb: str, *words: str, code: int = 0) -> None:
    assert main([verb, "-f", str(image.path), *words]) == code


def as_json(image: PastImage, capsys: Capture, verb: str, *words: str, code: int = 0) -> dict[str, Any]:
    run(image, verb, "--json", *words, code=code)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found["format"], found["command"]) == ("hammerfs/1", verb)
    return found


# --- ls -------------------------------------------------------------------------------------------


def test_what_is_there_and_what_is_not_any_more(image: PastImage, capsys: Capture) -> None:
    run(image, "ls", "/folder")
    assert capsys.readouterr().out.split() == ["kept", "link", "swapped", "young"]
    run(image, "ls", "--deleted", "/folder")
    first, second = image.states["second"] - 1, image.states["third"] - 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4] for line in lines] == [["22:13:40", "-", "14"], ["22:13:50", "d", "0"]]
    assert lines[0].endswith(f" gone@@{tid_text(first)}")
    assert lines[1].endswith(f" inner@@{tid_text(second)} (lives on elsewhere)")


def test_what_was_deleted_by_an_earlier_moment(image: PastImage, capsys: Capture) -> None:
    run(image, "ls", "--deleted", f"/folder@@{tid_text(image.states['second'])}")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_deleted_names_for_programs(image: PastImage, capsys: Capture) -> None:
    gone = as_json(image, capsys, "ls", "--deleted", "/folder")["directories"][0]["names"][0]
    assert (gone["name"], gone["type"], gone["size"], gone["uid"]) == ("gone", "file", 14, 1000)
    assert gone["deleted_tid"] == tid_text(image.states["second"])
    assert not gone["exists"]


# --- log ------------------------------------------------------------------------------------------


def test_a_log_is_newest_first(image: PastImage, capsys: Capture) -> None:
    run(image, "log", "/folder/kept")
    lines = [line.split(maxsplit=6) for line in capsys.readouterr().out.splitlines()]
    assert [(line[2], line[3], line[5]) for line in lines] == [
        ("22:13:50", "changed", "8"),
        ("22:13:40", "changed", "8"),
        ("22:13:30", "created", "4"),
    ]
    assert lines[1][6].split(maxsplit=1)[1] == "mode, size, mtime, data (8 bytes written)"
    run(image, "log", "/folder/gone", "/folder/never", code=1)
    out = capsys.readouterr().out
    assert " removed " in out
    assert "/folder/never: nothing is known of it" in out


def test_a_log_for_programs(image: PastImage, capsys: Capture) -> None:
    entries = as_json(image, capsys, "log", "/folder/kept")["paths"][0]["entries"]
    assert [entry["mode"] for entry in entries] == [0o600, 0o600, 0o755]
    assert entries[0]["tid"] == tid_text(image.states["third"])


# --- diff -----------------------------------------------------------------------------------------


def test_what_changed_between_two_moments(image: PastImage, capsys: Capture) -> None:
    first = tid_text(image.states["first"])
    expected = [
        "- folder/gone",
        "M folder/kept (data, 4 -> 8 bytes; mode)",
        "M folder/swapped (data, 12 -> 12 bytes)",
        "+ folder/young",
        "R folder/inner/ -> outer/",
    ]
    for words in ([f"/@@{first}", "/"], [first, "/"], ["2023-11-14T22:13:35", "/"], ["2023-11-14T22:13:35Z", "/"]):
        run(image, "diff", *words, code=1)
        assert capsys.readouterr().out.splitlines() == expected
    run(image, "diff", f"/folder@@{first}", tid_text(image.states["second"]), code=1)
    assert capsys.readouterr().out.splitlines() == ["- gone", "M kept (data, 4 -> 8 bytes; mode)"]
    run(image, "diff", f"/@@{first}", f"/@@{first}")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["0x0000000100000000", "2023-11-14"], "these are two moments, but of what?"),
        (["/absent", "/"], "/absent: No such file or directory"),
        (["/", "1999-01-01"], "there is no history as old as 1999-01-01"),
        (["/", "/folder"], "two trees at one moment"),
    ],
)
def test_what_cannot_be_compared(words: list[str], sentence: str, image: PastImage, capsys: Capture) -> None:
    run(image, "diff", *words, code=2)
    output = capsys.readouterr()
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_differences_for_programs(image: PastImage, capsys: Capture) -> None:
    found = as_json(image, capsys, "diff", tid_text(image.states["third"]), "/", code=1)
    assert found["changes"] == [
        {
            "kind": "added",
            "path": "folder/young",
            "old_path": None,
            "what": [],
            "old_size": None,
            "size": 6,
            "type": "file",
            "letter": "-",
        }
    ]


# --- restore --------------------------------------------------------------------------------------


def restore(image: PastImage, *words: str, code: int = 0) -> None:
    run(image, "restore", *words, code=code)


def test_a_deleted_file_comes_back(image: PastImage, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "back"
    restore(image, "-n", "--to", str(target), "/folder/gone")
    assert capsys.readouterr().out.startswith("would restore /folder/gone@@0x")
    assert not target.exists()
    restore(image, "--to", str(target), "/folder/gone")
    assert target.read_text() == "to be deleted\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


def test_a_directory_comes_back_with_all_that_was_in_it(image: PastImage, tmp_path: Path) -> None:
    target = tmp_path / "back"
    restore(image, "--time", "2023-11-14T22:13:35", "--to", str(target), "/folder")
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == [
        "gone",
        "inner",
        "inner/deep",
        "kept",
        "link",
        "swapped",
    ]
    assert os.readlink(target / "link") == "kept"
    assert (target / "kept").read_text() == "one\n"
    assert abs((target / "kept").stat().st_mtime - 1_700_000_010) < 10


def test_what_stands_there_is_compared_and_left_alone(
    image: PastImage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "file"
    target.write_text("mine\n")
    tid = tid_text(image.states["first"])
    restore(image, "--tid", tid, "--to", str(target), "/folder/kept")
    out = capfd.readouterr().out.splitlines()
    assert out[-3:-1] == ["-mine", "+one"]
    assert out[-1] == f"restored /folder/kept@@{tid} as {target}.{tid}"
    assert target.read_text() == "mine\n"
    assert (tmp_path / f"file.{tid}").read_text() == "one\n"
    restore(image, "--tid", tid, "--to", str(target), "/folder/kept")
    assert (tmp_path / f"file.{tid}.1").read_text() == "one\n"
    restore(image, "--tid", tid, "--to", str(target), "--force", "/folder/kept")
    assert target.read_text() == "one\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_restore_that_fails_changes_nothing(
    image: PastImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "mine").touch()
    real = os.utime

    def fails(path: Path, **times: Any) -> None:
        if path.name == "kept":
            raise OSError(28, "No space left on device", str(path))
        real(path, **times)

    monkeypatch.setattr(os, "utime", fails)
    tid = tid_text(image.states["first"])
    restore(image, "--tid", tid, "--to", str(target), "--force", "/folder", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in target.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["/folder/gone"], "say by --to where it shall be brought"),
        (["--to", "x", "/folder/kept"], "/folder/kept is there: say by --tid or --time"),
        (["--to", "x", "--before-delete", "/folder/kept"], "/folder/kept was not deleted"),
        (["--to", "x", "/folder/never"], "nothing is known of such a name"),
        (["--to", "x", "--tid", "0x10", "/folder/kept"], "there was nothing of that name at 0x0000000000000010"),
        (["--to", "x", "--tid", "10", "/folder/kept"], "'10' is no transaction id"),
        (["--to", "x", "--time", "noon", "/folder/kept"], "'noon' is no time"),
        (["--to", "x", "--time", "1999-01-01", "/folder/kept"], "there is no history as old as 1999-01-01"),
        (["--to", "/nowhere/x", "/folder/gone"], "/nowhere is no directory"),
    ],
)
def test_what_cannot_be_restored(words: list[str], sentence: str, image: PastImage, capsys: Capture) -> None:
    restore(image, *words, code=2)
    output = capsys.readouterr()
    assert sentence in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["log", "undo", "ls", "diff"])
def test_an_error_gives_a_terminal_no_orders(verb: str, image: PastImage, capsys: Capture) -> None:
    run(image, verb, "/never\x1b[2J/x", *(["/folder"] if verb == "diff" else []), code=2)
    err = capsys.readouterr().err
    assert "/never\\x1b[2J" in err
    assert "\x1b" not in err


def test_times_are_local_or_utc(time_zone: Callable[[str], None]) -> None:
    assert parse_time("2023-11-14T22:13:20") == 1_700_000_000_000_000
    time_zone("Europe/Berlin")
    assert parse_time("2023-11-14T23:13:20") == 1_700_000_000_000_000
    assert parse_time("2023-11-14T22:13:20Z") == 1_700_000_000_000_000
    assert parse_time("2023-11-15") == 1_700_002_800_000_000
