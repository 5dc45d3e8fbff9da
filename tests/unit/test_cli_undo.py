"""`undo` and `hammer history` on an image: output word for word, indexes, output files, what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from past_image import PastImage, make

from hammerfs.cli import differences, hammer, undo
from hammerfs.cli.main import main
from hammerfs.cli.moment import tid_text

pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> PastImage:
    return make(tmp_path_factory.mktemp("past") / "past.img")


def run(image: PastImage, *words: str, code: int = 0) -> None:
    assert undo.main(["-f", str(image.path), *words]) == code


def versions(image: PastImage, path: str, capsys: Capture) -> list[dict[str, object]]:
    run(image, "-i", "--json", path)
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["paths"][0]["versions"]
    return found


def test_a_list_of_moments(image: PastImage, capsys: Capture) -> None:
    tids = [version["tid"] for version in versions(image, "/folder/kept", capsys)]
    assert len(tids) == 3
    run(image, "-i", "/folder/kept")
    assert capsys.readouterr().out.splitlines() == [
        "/folder/kept: ITERATE ENTIRE HISTORY",
        f"\t{tids[0]} 14-Nov-2023 22:13:30",
        f"\t{tids[1]} 14-Nov-2023 22:13:40",
        f"\t{tids[2]} 14-Nov-2023 22:13:50",
    ]


def test_a_deleted_file_and_one_that_took_another_s_place(image: PastImage, capsys: Capture) -> None:
    """As in undo(1), the list ends with the last version that is there; one that is not is a gap between two."""
    run(image, "-i", "/folder/gone", "/folder/swapped")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 2)[2] for line in lines if line.startswith("\t")] == [
        "22:13:30",
        "22:13:30",
        "22:13:50 inode-change",
    ]
    assert [entry["exists"] for entry in versions(image, "/folder/gone", capsys)] == [True, False]
    first, second = versions(image, "/folder/swapped", capsys)
    assert first["obj_id"] != second["obj_id"]


def test_the_version_before_the_last_one(image: PastImage, capsys: Capture) -> None:
    tids = [version["tid"] for version in versions(image, "/folder/kept", capsys)]
    run(image, "/folder/kept")
    assert capsys.readouterr().out == f"\n>>> /folder/kept 0000 {tids[1]} 14-Nov-2023 22:13:40\n\none\ntwo\n"
    run(image, "/folder/gone")
    assert capsys.readouterr().out.endswith("22:13:30\n\nto be deleted\n")


@pytest.mark.parametrize(("index", "content"), [("0", "ONE\ntwo\n"), ("1", "one\ntwo\n"), ("+2", "one\n")])
def test_an_index_counts_back_from_the_latest_version(
    index: str, content: str, image: PastImage, capsys: Capture
) -> None:
    run(image, "-t", index, "/folder/kept")
    assert capsys.readouterr().out.partition("\n\n")[2] == content


def test_diffs(image: PastImage, capsys: Capture) -> None:
    tids = [version["tid"] for version in versions(image, "/folder/kept", capsys)]
    run(image, "-d", "/folder/kept")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (f"diff -N -r -u /folder/kept@@{tids[1]} /folder/kept@@{tids[2]} (to 14-Nov-2023 22:13:50)")
    assert lines[3:] == ["@@ -1,2 +1,2 @@", "-one", "+ONE", " two"]
    run(image, "-D", "/folder/kept")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"diff -N -r -u /folder/kept@@{tids[2]} /folder/kept@@{tids[1]}"
    assert lines[3:] == ["@@ -1,2 +1,2 @@", "-ONE", "+one", " two"]
    run(image, "-t", str(tids[0]), "-t", str(tids[1]), "/folder/kept")
    assert capsys.readouterr().out.splitlines()[3:] == ["@@ -1 +1,2 @@", " one", "+two"]
    run(image, "-d", "-t", "2", "/folder/kept")
    assert (
        capsys.readouterr()
        .out.splitlines()[0]
        .endswith(f"/folder/kept@@{tids[0]} /folder/kept (to 14-Nov-2023 22:13:50)")
    )


def test_a_directory_is_compared_with_all_that_is_below(image: PastImage, capsys: Capture) -> None:
    run(image, "-d", "-t", tid_text(image.states["first"]), "/folder")
    out = capsys.readouterr().out
    for line in ("-to be deleted", "-the old one", "+the new one", "+two", "-deep", "+young"):
        assert line in out.splitlines()


def test_all_versions_into_files(image: PastImage, tmp_path: Path, capsys: Capture) -> None:
    run(image, "-a", "-o", str(tmp_path / "out"), "/folder/kept")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "out.0001": "one\n",
        "out.0002": "one\ntwo\n",
        "out.0003": "ONE\ntwo\n",
    }
    run(image, "-t", "1", "-o", f"{tmp_path}/%%-%s", "/folder/kept", "/folder/gone")
    assert (tmp_path / "%-kept").read_text() == "one\ntwo\n"
    assert (tmp_path / "%-gone").read_text() == "to be deleted\n"


def test_a_file_beside_the_original(
    image: PastImage, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    run(image, "-u", "folder/kept")
    assert (tmp_path / "folder" / "kept.undo.0000").read_text() == "one\ntwo\n"


def test_what_has_no_history_is_told(image: PastImage, capsys: Capture) -> None:
    run(image, "/folder/young", "/folder/never", code=1)
    assert capsys.readouterr().out == "/folder/young: No UNDO history found\n/folder/never: No UNDO history found\n"
    run(image, "-t", "0x0000000000000020", "/folder/never", code=1)
    assert "Unable to access either /folder/never@@0x0000000000000020 or /folder/never" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-i", "-d", "/folder/kept"], "it has to be one of them"),
        (["-o", "x", "-u", "/folder/kept"], "-o option may not be combined with -u"),
        (["-t", "1", "-t", "2", "-t", "3", "/folder/kept"], "-t may be given twice"),
        (["-t", "yesterday", "/folder/kept"], "'yesterday' is no transaction id"),
        (["-o", "x", "/folder/kept", "/folder/gone"], "there has to be one %s in it"),
        (["-o", "%d", "/folder/kept", "/folder/gone"], "there has to be one %s in it"),
        (["--json", "/folder/kept"], "--json goes with -i"),
        (["-i", "/nowhere/kept"], "/nowhere: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    words: list[str], sentence: str, image: PastImage, capsys: Capture
) -> None:
    run(image, *words, code=2)
    output = capsys.readouterr()
    assert sentence in output.err
    assert output.err.startswith("undo: ")
    assert output.err.count("\n") == 1
    assert output.out == ""


# --- hammer history -------------------------------------------------------------------------------


def listed(image: PastImage, *words: str, capsys: Capture, front: tuple[str, ...] = (), code: int = 0) -> list[str]:
    assert hammer.main(["-f", str(image.path), *front, *words]) == code
    return capsys.readouterr().out.splitlines()


def test_the_history_of_an_inode(image: PastImage, capsys: Capture) -> None:
    lines = listed(image, "history", "/folder/kept", "/folder/gone", capsys=capsys, code=1)
    path, _, rest = lines[0].partition("\t")
    assert (path, rest.split()[1:]) == ("/folder/kept", ["clean", "{"])
    assert len(rest.split()[0]) == 16
    assert [line.split(" ", 5)[5] for line in lines[1:-2]] == [
        "14-Nov-2023 22:13:30",
        "14-Nov-2023 22:13:40",
        "14-Nov-2023 22:13:50",
    ]
    assert lines[-2:] == ["}", "/folder/gone\tNo such file or directory"]


@pytest.mark.parametrize(
    "words",
    [["history@4,3", "/folder/kept"], ["history", "-o", "4,3", "/folder/kept"], ["history", "/folder/kept@0x4,0x3"]],
)
def test_the_history_at_an_offset_with_its_bytes(words: list[str], image: PastImage, capsys: Capture) -> None:
    lines = listed(image, *words, capsys=capsys, front=("-v",))
    assert [line[21:] for line in lines[1:-1]] == [
        "14-Nov-2023 22:13:30 ''",
        "14-Nov-2023 22:13:40 'two'",
        "14-Nov-2023 22:13:50 'two'",
    ]
    assert listed(image, *words, capsys=capsys)[2].endswith("22:13:40")


def test_history_as_json(image: PastImage, capsys: Capture) -> None:
    assert main(["-f", str(image.path), "--json", "history", "/folder/kept"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "hammerfs/1"
    assert [moment["seconds"] for moment in found["paths"][0]["moments"]] == [1700000010, 1700000020, 1700000030]


def test_a_path_that_is_not_there_is_told_by_the_exit_code_as_well(image: PastImage, capsys: Capture) -> None:
    told = listed(image, "history", "/folder/gone", capsys=capsys, front=("--json",), code=1)
    assert json.loads("".join(told))["paths"] == [{"path": "/folder/gone", "error": "No such file or directory"}]


@pytest.mark.parametrize("word", ["-v", "-vv", "-f", "-tx"])
def test_an_option_behind_the_directive_is_no_path(word: str, image: PastImage, capsys: Capture) -> None:
    assert hammer.main(["-f", str(image.path), "history", word, "/folder/kept"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(
        f"hammer: history: options stand before the directive, as in 'hammer {word} history ...'"
    )
    assert listed(image, "history", f"./{word}", capsys=capsys, code=1) == [f"./{word}\tNo such file or directory"]
    assert listed(image, "history", "-w", capsys=capsys, code=1) == ["-w\tNo such file or directory"]


def test_an_offset_that_is_none(image: PastImage, capsys: Capture) -> None:
    assert hammer.main(["-f", str(image.path), "history@x", "/folder/kept"]) == 1
    assert "'@x' is no @offset" in capsys.readouterr().err


def test_differences_are_shown_while_diff_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large trees they do not fit into memory; whoever has seen enough, as head(1), ends it."""
    endless = tmp_path / "diff"
    endless.write_text("#!/bin/sh\nexec yes different\n")
    endless.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    troubles: list[str] = []
    pieces = differences.compare(["a", "b"], troubles)
    assert next(pieces).startswith(b"different\ndifferent\n")
    pieces.close()
    endless.write_text("#!/bin/sh\necho no >&2; echo more >&2; exit 2\n")
    assert list(differences.compare(["a", "b"], troubles)) == []
    endless.write_text("#!/bin/sh\nexit 5\n")
    assert list(differences.compare(["a", "b"], troubles)) == []
    assert troubles == ["no; more", "diff ended with 5"]
