"""The dispatcher: verbs, lazy imports, exit codes and what reaches stderr."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import pytest

from hammerfs.cli import main as dispatcher
from hammerfs.cli.errors import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, guarded
from hammerfs.errors import BusyError, CorruptionError, DeviceError, HammerError


def raising(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (CorruptionError("B-tree node with a bad CRC", offset=0x8000), 2, "node with a bad CRC at 0000000000008000"),
        (BusyError("x.img is in use by process 17"), 2, "x.img is in use by process 17"),
        (DeviceError("read", "x.img", 5, 6, OSError(5, "")), 2, "cannot read 6 bytes at offset 5: Input/output error"),
        (FileNotFoundError(2, "No such file or directory", "gone"), 2, "gone: No such file or directory"),
        (OSError("odd"), 2, "odd"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted"),
    ],
)
def test_an_error_is_one_sentence_and_a_code(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded("hammerfs", raising(error)) == code
    output = capsys.readouterr()
    assert output.err.startswith("hammerfs: ")
    assert sentence in output.err
    assert output.err.count("\n") == 1
    assert not output.out


def test_our_own_bugs_are_not_hidden() -> None:
    with pytest.raises(AssertionError):
        guarded("hammerfs", raising(AssertionError("bug")))


def test_an_error_may_bring_its_own_code() -> None:
    class Own(HammerError):
        exit_code = 9

    assert guarded("hammerfs", raising(Own("no"))) == 9


def test_a_directive_in_the_background_of_a_script_can_be_interrupted() -> None:
    """A shell without job control starts it with ^C ignored, which hammer(8) overrides."""
    script = "import signal, sys\nfrom hammerfs.cli import hammer\nsys.argv[1:] = ['-h']\n"
    script += "signal.signal(signal.SIGINT, signal.SIG_IGN)\nhammer.main()\nsignal.raise_signal(signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    script = "import sys\nfrom hammerfs.cli.errors import guarded\n"
    script += "def action():\n    while True: print('x' * 1000)\nsys.exit(guarded('hammerfs', action))"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == EXIT_BROKEN_PIPE


def test_without_a_verb_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatcher.main([]) == 2
    text = capsys.readouterr().err
    assert all(verb in text for verb in dispatcher.VERBS)


@pytest.mark.parametrize("arguments", [["frobnicate"], ["--frobnicate"], ["check"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        dispatcher.main(arguments)
    assert caught.value.code == 2
    assert "usage: hammerfs" in capsys.readouterr().err


def test_a_verb_is_loaded_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        def add_parser(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
            subparsers.add_parser("check").add_argument("number", type=int)

        def run(self, args: argparse.Namespace) -> int:
            return int(args.number) + 1

    monkeypatch.setattr(dispatcher, "load", lambda name: Module())
    assert dispatcher.main(["check", "4"]) == 5


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["show-undo", "--help"]])
def test_offline_commands_import_no_fuse(arguments: list[str]) -> None:
    script = "import sys\nfrom hammerfs.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit: pass\n"
    script += "print('loaded:', sorted({'pyfuse3', 'trio'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert "loaded: []" in run.stdout
    assert "usage: hammerfs" in run.stdout


def test_every_offline_verb_has_a_module() -> None:
    for verb in ("check", "show", "show-undo", "blockmap", "checkmap"):
        module = dispatcher.load(verb)
        assert callable(module.run)
        assert callable(module.add_parser)
