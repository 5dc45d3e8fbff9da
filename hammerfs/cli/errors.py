"""From exceptions to one sentence and an exit code; no command ends in a traceback for what disk or user did.

Exit codes: the command's own (0 well, 1 as the command documents), 2 for errors (`HammerError.exit_code`),
130 after Ctrl-C, 141 when whoever read our output went away (as a shell reports SIGINT and SIGPIPE).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from hammerfs.cli.report_lines import take_any_name
from hammerfs.errors import HammerError
from hammerfs.ops.escaping import on_one_line

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def guarded(program: str, action: Callable[[], int]) -> int:
    """Run `action` and return its exit code, or that of the error it raised, told in one sentence on stderr.

    To parse arguments is part of it, since that may print help; the SystemExit it ends with passes through.
    """
    open_standard_streams()
    take_any_name()
    try:
        try:
            code = action()
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except HammerError as error:
        return _failed(program, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _failed(program, "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        return _failed(program, "", EXIT_BROKEN_PIPE)
    except OSError as error:
        takes_no_more = error.filename is None and not _settled(sys.stdout)
        return _failed(program, f"{'standard output: ' * takes_no_more}{described(error)}", EXIT_ERROR)


def open_standard_streams() -> None:
    """Open on nothing what whoever called us closed of the three standard streams.

    To be done before anything else is opened: an image that got the number of one would be written by what prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the number is free, and no smaller one is: it is the next to be given out
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, errors="backslashreplace"))  # noqa: SIM115 -- for as long as we run


def _failed(program: str, sentence: str, code: int) -> int:
    """Tell it, as far as somebody takes it; the interpreter's last flush must not fail once more and tell of that."""
    _settled(sys.stdout)
    if sentence:
        with suppress(OSError):
            # It may name what an image or somebody else calls things; a usage has several lines.
            print(f"{program}: " + "\n".join(map(on_one_line, sentence.split("\n"))), file=sys.stderr)
    _settled(sys.stderr)
    return code


def _settled(stream: TextIO) -> bool:
    """Flush a stream; where that fails, point it at nothing, with what is still in its buffer."""
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)
        return False
    return True


def described(error: Exception) -> str:
    """An error as a sentence for people: without the number of an OSError, which says no more than its text."""
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def described_of(path: str, error: Exception) -> str:
    """The same where one of several paths is meant: the sentence names it, whether or not the error does."""
    sentence = described(error)
    return sentence if sentence.startswith((f"{path}: ", f"{path} ")) else f"{path}: {sentence}"
