"""The options in front of a directive, and which command lines are hammer(8)'s."""

from __future__ import annotations

import dataclasses

import pytest

from hammerfs.cli import hammer
from hammerfs.cli.hammer_options import HammerOptions, parse
from hammerfs.cli.main import VERBS
from hammerfs.errors import UsageError


def options(*words: str) -> HammerOptions:
    return parse([*words, "info"])[0]


def test_options_end_at_the_directive() -> None:
    found, rest = parse(["-v", "-f", "a:b", "snap", "-v", "note"])
    assert rest == ["snap", "-v", "note"]
    assert (found.verbosity, found.specials, found.word) == (1, ["a", "b"], "snap")


def test_every_option_of_the_manual_is_understood() -> None:
    words = "-2ABFXry -b 3 -c cyc -e score -i 7 -m 5g -p 22 -R snap -T /x -S 4M -t 9 -C 8m:1m -d"
    found = options(*words.split())
    assert (found.two_way, found.all_pfs, found.bulk, found.force) == (True,) * 4
    assert (found.compress, found.recurse, found.yes) == (True,) * 3
    assert (found.bandwidth, found.cycle_path, found.scoreboard, found.delay) == (3, "cyc", "score", 7)
    assert (found.memory_bytes, found.ssh_port, found.timeout, found.debug) == (5 << 30, "22", 9, 1)
    assert (found.splitup, found.splitup_bytes) == ("4M", 4 << 20)
    assert (found.cache_bytes, found.readahead) == (8 << 20, 1 << 20)
    assert (found.restrict_command, found.restrict_target) == ("snap", "/x")


@pytest.mark.parametrize(("words", "level"), [("-v -v -q", 1), ("-q -q", -2), ("-v -q", 0), ("-qqq", -3)])
def test_verbosity_is_what_v_and_q_leave(words: str, level: int) -> None:
    found = options(*words.split())
    assert (found.verbosity, found.verbose, found.quiet) == (level, level > 0, level < 0)


def test_the_first_restriction_counts() -> None:
    """The other side's words come behind those of the forced command."""
    found = options("-R", "mirror-read", "-R", "pfs-destroy", "-T", "/a", "-T", "/")
    assert (found.restrict_command, found.restrict_target) == ("mirror-read", "/a")
    hammer.check_restrictions(found, "mirror-read")
    with pytest.raises(UsageError, match="does not match restricted command"):
        hammer.check_restrictions(found, "pfs-destroy")


@pytest.mark.parametrize("words", ["-b x", "-b 3q", "-t", "-m 1kk", "-i -5", "-Z", "--nonsense", "-C x"])
def test_what_cannot_be_read_is_refused(words: str) -> None:
    with pytest.raises(UsageError):
        parse(words.split())


@pytest.mark.parametrize("words", ["-f img show", "synctid /", "-v info", "--json info", "-qqq -f a:b show"])
def test_command_lines_of_hammer(words: str) -> None:
    assert hammer.is_meant(words.split())


@pytest.mark.parametrize("words", ["", "mount x y", "check x", "--help", "-h", "--version", "nonsense"])
def test_command_lines_that_are_none(words: str) -> None:
    assert not hammer.is_meant(words.split())


def test_every_directive_is_where_the_table_says() -> None:
    for name in hammer.MODULE_OF:
        assert hammer.directive(name).name == name
    for word in hammer.usage().splitlines():
        assert word.startswith(("hammer ", "       ["))


def test_the_usage_is_shown_when_nothing_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert hammer.main([]) == hammer.EXIT_USAGE
    assert "hammer synctid <filesystem> [quick]" in capsys.readouterr().err
    assert hammer.main(["-h"]) == 0
    assert "hammer synctid <filesystem> [quick]" in capsys.readouterr().out


@pytest.mark.parametrize("name", hammer.MODULE_OF)
def test_who_asks_a_directive_for_help_gets_that_and_nothing_is_done(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`snap --help` made a snapshot, and `pfs-master --help` a PFS of that name."""
    known = hammer.directive(name)

    def refuse(*_arguments: object) -> int:
        raise AssertionError(f"{name} was carried out")

    monkeypatch.setattr(hammer, "directive", lambda _name: dataclasses.replace(known, run=refuse))
    for arguments in ([name, "--help"], [name, "somewhere", "--help"]):
        assert hammer.main(arguments) == 0
        assert capsys.readouterr().out.startswith(f"usage: hammer {known.usage}\n")


def test_an_unknown_directive_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert hammer.main(["nonsense"]) == 2
    assert capsys.readouterr().err == "hammer: unknown directive 'nonsense'; 'hammer -h' lists them\n"
    assert "nonsense" not in VERBS
