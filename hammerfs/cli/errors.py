"""From exceptions to one sentence and an exit code; no command ends in a traceback for what disk or user did.

Exit codes: the command's own (0 well, 1 as the command documents), 2 for errors (`HammerError.exit_code`),
130 after Ctrl-C, 141 when whoever read our output went away (as a shell reports SIGINT and SIGPIPE).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from hammerfs.cli.report_lines import take_any_name
from hammerfs.errors import HammerError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def guarded(program: str, action: Callable[[], int]) -> int:
    """Run `action` and return its exit code, or that of the error it raised, told in one sentence on stderr."""
    take_any_name()
    try:
        code = action()
        sys.stdout.flush()
    except HammerError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        print(f"{program}: {described(error)}", file=sys.stderr)
        return EXIT_ERROR
    return code


def described(error: Exception) -> str:
    """An error as a sentence for people: without the number of an OSError, which says no more than its text."""
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def described_of(path: str, error: Exception) -> str:
    """The same where one of several paths is meant: the sentence names it, whether or not the error does."""
    sentence = described(error)
    return sentence if path in sentence else f"{path}: {sentence}"


def _drop_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    finally:
        os.close(null)
