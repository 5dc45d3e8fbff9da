"""`hammer show`: the whole B-tree, and what of it somebody asks for, in the original's lines where that is built."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from second_opinion import demand_original
from small_filesystem import fresh, make, mount

from hammerfs.cli import hammer
from hammerfs.cli.main import main
from hammerfs.device.base import Device
from hammerfs.errors import UsageError
from hammerfs.ops.show_search import Search

FILES = 150
"""As many as make a B-tree of several leaves."""
FORMS = [
    ["1"],
    ["1:1"],
    ["00010002:1"],
    ["2:1:11"],
    ["2:0000000100000050"],
    ["2:0x100000050:10:0"],
    ["ffff0002:1"],
    [""],
    ["2:", "filter"],
    ["1:100000050", "filter"],
    ["1:100000050", "nofilter"],
    ["2:1:11", "filter,obfuscate"],
    ["none", "indent"],
    ["1:1:1", "indent,filter,obfuscate"],
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with a folder of some files, unmounted."""
    (memory,) = fresh()
    fs = mount([memory])
    folder = make(fs, fs.root, b"folder")
    for number in range(FILES):
        make(fs, folder, b"file-%03d" % number, b"content")
    fs.close_now()
    return written(memory, tmp_path_factory.mktemp("show") / "volume.img")


@pytest.fixture(scope="module")
def detailed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with a configuration, an extended attribute, and files below and above the size of a buffer."""
    folder = tmp_path_factory.mktemp("detailed")
    (memory,) = fresh()
    fs = mount([memory], xattr=True)
    small = make(fs, fs.root, b"small", b"\x00tiny\x7f" * 5)
    large = make(fs, fs.root, b"large", b"")
    fs.write(large, 0, bytes(range(256)) * 64)
    fs.write(large, 1 << 20, b"x" * (1 << 16))  # from here on a record holds several buffers
    fs.setxattr(small, b"user.note", b"remember")
    fs.close_now()
    path = written(memory, folder / "volume.img")
    text = folder / "config"
    text.write_text("snapshots 1d 60d\r\n\n\tprune 1d 5m")
    assert hammer.main(["-f", str(path), "config", "/", str(text)]) == 0
    return path


def written(memory: Device, path: Path) -> Path:
    """What a device in memory holds, as a file."""
    with path.open("wb") as file:
        for start in range(0, memory.size, 1 << 20):
            file.write(memory.read(start, 1 << 20))
    return path


Directive = Callable[..., list[str]]


@pytest.fixture
def directive(image: Path, capsys: pytest.CaptureFixture[str]) -> Directive:
    """Runs `hammer -f image` with options and words; the lines that it prints."""

    def run(*words: str, options: tuple[str, ...] = ()) -> list[str]:
        capsys.readouterr()
        assert hammer.main([*options, "-f", str(image), "show", *words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    return run


def elements(lines: list[str]) -> list[str]:
    return [line for line in lines if " ELM " in line]


def test_a_search_begins_at_the_node_that_leads_there_and_goes_on(image: Path, directive: Directive) -> None:
    everything = elements(directive())
    found = directive("2:1")
    assert 'arg="2:1" lo=00000002 objid=0000000000000001' in found
    leaves = [line for line in elements(found) if line[15:16] == "R"]
    assert 0 < len(leaves) < len([line for line in everything if line[15:16] == "R"])
    assert everything[-len(leaves) :] == leaves
    assert any("lo=00000002 objid=0000000000000001" in line for line in leaves)


def test_a_strict_search_shows_nodes_that_lead_there_only(directive: Directive) -> None:
    nodes = [line for line in directive("2:1:1:0", "filter") if " NODE " in line]
    everything = [line for line in directive() if " NODE " in line]
    assert 1 < len(nodes) < len(everything)
    assert set(nodes) <= set(everything)


def test_marks_stand_at_what_is_sought(directive: Directive) -> None:
    found = directive("1:1", "nofilter")
    plain = directive()
    assert [line.removesuffix(" *") for line in found if not line.startswith("arg=")] == plain
    marked = [line for line in found if line.endswith(" *")]
    assert any(" suboff=" in line for line in marked)
    assert any("ctime=" in line for line in marked)


def test_obfuscation_takes_names_and_nothing_else(directive: Directive) -> None:
    plain, obfuscated = directive(), directive("none", "obfuscate")
    assert not [line for line in obfuscated if "file-" in line]
    assert [line.split(" name=")[0] for line in plain] == [line.split(" name=")[0] for line in obfuscated]


def test_tabs_show_the_depth(directive: Directive) -> None:
    indented = directive("none", "indent")
    assert [line.lstrip("\t") for line in indented] == directive()
    depths = {int(line.split("depth=")[1].split()[0]) for line in indented if " NODE " in line}
    assert depths == {line.count("\t") for line in indented if " NODE " in line}
    assert len(depths) > 1


def test_twice_q_leaves_out_what_records_say_and_v_counts(directive: Directive) -> None:
    plain = directive()
    assert directive(options=("-q",)) == plain
    assert directive(options=("-qq",)) == [
        line
        for line in plain
        if not line.startswith(" " * 17) or line.lstrip().startswith(("d", "del="))
        if not line.lstrip().startswith("dir-entry")
    ]
    counted = directive(options=("-v",))
    assert counted[: len(plain)] == plain
    assert counted[-3:] == ["0 bad nodes", "0 bad elms", "0 bad records"]


def test_three_times_q_is_no_quieter(directive: Directive) -> None:
    assert directive(options=("-qqq",)) == directive(options=("-qq",)) == directive(options=("-v", "-qqqq"))


def test_more_v_shows_what_records_hold(detailed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for options in ("-vv", "-vvv", "-vvvv"):
        assert hammer.main([options, "-f", str(detailed), "show"]) == 0
        shown.append(capsys.readouterr().out.splitlines())
    counted, details, contents = shown
    assert not {line for line in counted if "config" in line or "|" in line}
    config = details.index(f'{" " * 17}config text="')
    assert details[config + 1 : config + 4] == [
        f"{' ' * 29}snapshots 1d 60d",
        f"{' ' * 29}\\x09prune 1d 5m",
        f'{" " * 29}"',
    ]
    assert [line for line in details if "|" in line] == [
        "\t\t  0000   09 00 75 73 65 72 2e 6e 6f 74 65 72 65 6d 65 6d  |..user.noteremem|",
        "\t\t  0010   62 65 72                                         |ber             |",
    ]
    first = contents.index("\t\t  0000   00 74 69 6e 79 7f 00 74 69 6e 79 7f 00 74 69 6e  |.tiny..tiny..tin|")
    dumped = contents[first:]
    assert dumped[1] == "\t\t  0010   79 7f 00 74 69 6e 79 7f 00 74 69 6e 79 7f 00 00  |y..tiny..tiny...|"
    assert "" in dumped
    assert len([line for line in contents if line.startswith("\t\t  3ff0")]) == 2
    assert contents.count("\t\t  ....") == 1
    assert not [line for line in contents if line.startswith("\t\t  4000")]


def test_twice_v_tells_all_that_the_freemap_holds(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hammer.main(["-vv", "-f", str(image), "blockmap"]) == 0
    shown = capsys.readouterr().out.splitlines()
    entries = [line for line in shown if " zone=" in line]
    assert len(entries) == 1 << 19
    assert "zone=15 " in entries[-1]
    assert hammer.main(["-v", "-f", str(image), "blockmap"]) == 0
    fewer = [line for line in capsys.readouterr().out.splitlines() if " zone=" in line]
    assert 0 < len(fewer) < 1000
    assert entries[: len(fewer)] == fewer


def test_zones_are_counted(directive: Directive) -> None:
    shown = directive(options=("-v",))
    table = shown[shown.index("HAMMER zone statistics") :]
    nodes = len([line for line in shown if " NODE " in line])
    sizes = [int(line.split("dataoff=9")[1].split("/")[1].split()[0]) for line in shown if "dataoff=9" in line]
    rows = {line[:7]: line.split()[2:] for line in table if re.match("zone [0-9]", line)}
    assert rows["zone 8 "] == ["btree", "1", str(nodes), str(nodes * 4096), f"{nodes * 4096 * 100 / (1 << 23):g}"]
    assert rows["zone 9 "][1:4] == ["1", str(len(sizes)), str(sum(sizes))]
    assert rows["zone 15"] == ["unavail", "0", "0", "0", "0"]
    total = next(line for line in table if line.startswith("total")).split()
    assert total[2] == str(sum(int(row[-3]) for row in rows.values()))


@pytest.mark.parametrize("name", ["show-undo", "blockmap", "checkmap"])
def test_the_other_reports_count_zones_too(name: str, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hammer.main(["-v", "-f", str(image), name]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "HAMMER zone statistics" in shown
    if name == "checkmap":
        correct = [line for line in shown if line.endswith("(correct)")]
        blocks = next(line for line in shown if line.startswith("total ")).split()[1]
        assert len(correct) == int(blocks)
        assert shown[-1] == "0 errors"
    if name == "blockmap":
        assert re.search(
            r"(?m)vol=0 +L1#=0 +L2#=0 +L1=0 +L2=0 +app=\d+ +free=\d+ +fill=[\d.]+ +crc=\w{8}-\w{8}$", "\n".join(shown)
        )


@pytest.mark.parametrize("text", ["x", "1:g", "1:1:10000", "100000000", "1:-1", "1:11111111111111111"])
def test_what_is_no_key_is_refused(text: str, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        Search.parse(text)
    assert hammer.main(["-f", str(image), "show", text]) != 0
    assert "hexadecimal" in capsys.readouterr().err


def test_unknown_words_and_too_many_are_refused(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hammer.main(["-f", str(image), "show", "1", "fliter"]) == 1
    assert hammer.main(["-f", str(image), "show", "1", "filter", "indent"]) == 1
    assert "usage: hammer -f blkdevs show [localization" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["show", "show-undo", "blockmap", "checkmap"])
def test_the_original_says_as_much_with_v(name: str, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = demand_original()
    theirs = subprocess.run([original, "-v", "-f", str(image), name], capture_output=True, check=True)
    assert hammer.main(["-v", "-f", str(image), name]) == 0
    assert capsys.readouterr().out.splitlines() == theirs.stdout.decode().splitlines()


@pytest.mark.parametrize("words", [["-vvv", "show"], ["-vvvv", "show"], ["-qqq", "show"], ["-vv", "blockmap"]])
def test_the_original_says_as_much_of_records(
    words: list[str], detailed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = demand_original()
    theirs = subprocess.run([original, words[0], "-f", detailed, *words[1:]], capture_output=True, check=True)
    assert hammer.main([words[0], "-f", str(detailed), *words[1:]]) == 0
    # A tab in a configuration is no order to a terminal here.
    assert capsys.readouterr().out.replace("\\x09", "\t") == theirs.stdout.decode()


def test_the_original_prints_the_same(image: Path, directive: Directive) -> None:
    original = demand_original()
    for form in FORMS:
        theirs = subprocess.run([original, "-f", str(image), "show", *form], capture_output=True, check=True)
        ours, lines = directive(*form), theirs.stdout.decode().splitlines()
        # What PFS records say is not indented by the original, unlike all the rest.
        indented = [i for i, line in enumerate(ours) if "uuid=" not in line and "mirror_flags=" not in line]
        assert [line.lstrip("\t") for line in ours] == [line.lstrip("\t") for line in lines], form
        assert [ours[i] for i in indented] == [lines[i] for i in indented], form


@pytest.mark.parametrize("word", ["show", "show-undo", "blockmap", "checkmap"])
def test_reports_for_programs_hold_the_same_lines(word: str, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for command in ([word, str(image)], ["-f", str(image), word]):
        assert main(command) == 0
        lines = capsys.readouterr().out
        assert main([*command, "--json"] if command[0] == word else ["--json", *command]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["format"], found["command"]) == ("hammerfs/1", word)
        assert found["lines"] == lines.splitlines()
        told.append(found["lines"])
    assert told[0]
