"""The manual pages: clean mdoc, with every directive and option in them, installed, and true."""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from manual_pages import FOLDER, IMAGE, PAGES, ROOT, Session, complaints, examples, section, source
from past_image import make

from hammerfs.cli import hammer, main, mkfs, mount_helper, mount_options
from hammerfs.cli.hammer_options import SHORT_OPTIONS

OWN_PAGES = {"mount": "mount.hammer.8", "undo": "undo.1"}
"""Verbs of `hammerfs` that have a page of their own."""
MACROS = {"Ar", "Cm", "Fl", "Li", "Nm", "Ns", "Oc", "Oo", "Op", "Pa", "Pq", "Ql", "Sx", "Xr"}
NAMED = re.compile(r"(?:^\.|\s)Xr (\S+) (\d)", re.MULTILINE)


def described(text: str, macro: str) -> Iterator[str]:
    """The words that items of lists begin with, as far as they stand behind a macro: `Fl` for options."""
    for line in text.splitlines():
        current = ""
        for word in line.split() if line.startswith(".It ") else ():
            if word in MACROS:
                current = word
            elif current == macro and word not in (",", "|", ":"):
                yield word


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {word.removeprefix("-") for action in parser._actions for word in action.option_strings}


def verb_parser(verb: str) -> argparse.ArgumentParser:
    (verbs,) = (action for action in main.build_parser(verb)._actions if isinstance(action, argparse._SubParsersAction))
    parser: argparse.ArgumentParser = verbs.choices[verb]
    return parser


# --- nothing is missing, and nothing is too much --------------------------------------------------


def test_every_directive_is_described() -> None:
    assert set(described(section("hammer.8", "DIRECTIVES"), "Cm")) >= set(hammer.MODULE_OF)


def test_no_directive_is_described_that_there_is_not() -> None:
    first = re.findall(r"^\.It Cm ([a-z0-9-]+)", section("hammer.8", "DIRECTIVES"), re.MULTILINE)
    assert set(first) == set(hammer.MODULE_OF)


def test_every_option_of_hammer_is_described() -> None:
    letters = set(SHORT_OPTIONS.replace(":", ""))
    assert set(described(section("hammer.8", "OPTIONS"), "Fl")) == letters | {"-json"}


@pytest.mark.parametrize("verb", sorted(main.VERBS))
def test_every_option_of_a_verb_is_described(verb: str) -> None:
    page = OWN_PAGES.get(verb)
    text = section("hammerfs.1", f"hammerfs {verb}") + (source(page) if page else "")
    assert set(described(text, "Fl")) >= options_of(verb_parser(verb)) - {"h", "-help"}


def test_every_option_of_mkfs_is_described() -> None:
    assert set(described(source("mkfs.hammer.8"), "Fl")) == options_of(mkfs.build_parser())


def test_every_option_of_mount_is_described() -> None:
    wanted = options_of(mount_helper.build_parser()) | options_of(verb_parser("mount"))
    assert set(described(source("mount.hammer.8"), "Fl")) >= wanted - {"N", "t"}
    names = {*mount_options._FLAGS, *mount_options._KERNEL, *mount_options._VALUES, "keepfree", "default_permissions"}
    found = {word.partition("=")[0] for word in described(section("mount.hammer.8", "MOUNT OPTIONS"), "Cm")}
    assert found - {"hidden", "visible", "off"} == names


def test_a_word_that_is_missing_is_missed() -> None:
    assert set(described(".It Fl a , b Ar c Fl -long\n.Fl d\n.It Cm e Ns Ar f", "Fl")) == {"a", "b", "-long"}


# --- clean, and installed -------------------------------------------------------------------------


def test_every_page_is_installed() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    installed = {
        (folder, path)
        for folder, paths in config["options.data_files"].items()
        for path in paths.strip().splitlines()
        if folder.startswith("share/man/")
    }
    assert installed == {(f"share/man/man{page[-1]}", f"docs/man/{page}") for page in PAGES}
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_refers_to_pages_that_there_are(page: str) -> None:
    ours = {name.rpartition(".")[0] for name in PAGES}
    named = {(name, number) for name, number in NAMED.findall(source(page)) if name in ours}
    assert named
    assert all(f"{name}.{number}" in PAGES for name, number in named)


@pytest.mark.programs("mandoc")
@pytest.mark.parametrize("page", PAGES)
def test_mandoc_has_nothing_to_complain_about(page: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", FOLDER / page], capture_output=True, text=True, check=False, timeout=60
    )
    # Which other pages a machine has says nothing about this one.
    said = [line for line in done.stdout.splitlines() if "referenced manual not found" not in line]
    assert not said, "\n".join(said)


@pytest.mark.programs("man", "groff")
@pytest.mark.parametrize("page", PAGES)
def test_man_shows_a_page_without_a_warning(page: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", FOLDER / page],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "SEE ALSO" in re.sub(".\b|\x1b\\[[0-9;]*m", "", done.stdout)


# --- true -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_examples_and_says_how_they_run(page: str) -> None:
    assert list(examples(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_examples_on_an_image_are_true(page: str, tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    make(folder / "disk.img")
    said = list(complaints(page, IMAGE, Session(folder, tmp_path / "programs")))
    assert not said, "\n\n".join(said)


def test_an_example_that_is_not_true_is_found(tmp_path: Path) -> None:
    session = Session(tmp_path, tmp_path / "programs")
    first, second = f"0x{1:016x}", f"0x{2:016x}"
    assert session._same([f"a {second}", f"b {second}"], [f"a  {first}", f"b {first}"])
    assert not session._same([f"c {second}"], [f"c {second}"])
    assert session._same(["one", "...", "four"], ["one", "two", "three", "four"])
    assert not session._same(["one", "...", "four"], ["one", "two", "three"])
    assert not session._same(["26-Nov-2026 08:32:15 x"], ["26-Nov-2026 08:32:15 y"])
    assert session._same(["26-Nov-2026 08:32:15 x"], ["27-Nov-2026 00:00:00 x"])
