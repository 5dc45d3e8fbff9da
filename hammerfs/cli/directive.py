"""What the modules of hammer(8)'s directives share: how they are declared, and how they print."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from hammerfs.cli.errors import described_of
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.report_lines import JSON_FORMAT, print_lines
from hammerfs.errors import HammerError

_COUNTDOWN_SECONDS = 5

Run: TypeAlias = Callable[[HammerOptions, list[str]], int]
"""Carries a directive out, given its arguments; returns the exit code."""


class DirectiveError(HammerError):
    """A directive ends here, with one sentence and the exit code that hammer(8) has for it."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive.

    name -- its word on the command line
    usage -- its arguments, as the usage message shows them
    run -- what it does
    """

    name: str
    usage: str
    run: Run


def usage_error(*usages: str) -> DirectiveError:
    """The arguments were not what the directive takes."""
    return DirectiveError("usage: " + "\n       ".join(f"hammer {usage}" for usage in usages))


def show(options: HammerOptions, name: str, result: dict[str, Any], lines: Iterable[str]) -> None:
    """Print a result: as one JSON object with --json, else as lines for people."""
    if options.json:
        json.dump({"format": JSON_FORMAT, "command": name, **_for_programs(result)}, sys.stdout, indent=1)
        print()
    else:
        print_lines(lines)


def _for_programs(value: Any, name: str = "") -> Any:
    """A result in which TIDs are what they are everywhere, hexadecimal: as numbers some programs would round them."""
    if isinstance(value, dict):
        return {key: _for_programs(item, key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_programs(item, name) for item in value]
    is_tid = name in ("tid", "tids") or name.endswith(("_tid", "_tids"))
    return f"{value:#018x}" if is_tid and type(value) is int else value


def asked_of_each(
    word: str, paths: Iterable[str], ask: Callable[[str], dict[str, Any]]
) -> tuple[list[dict[str, Any]], bool]:
    """What `ask` has to say of each path, and whether that was all of them.

    One that cannot be asked is told of on stderr, and takes nothing away from the others.
    """
    results, complete = [], True
    for path in paths:
        try:
            results.append({"path": path, **ask(path)})
        except (HammerError, OSError) as error:
            print(f"hammer {word}: {described_of(path, error)}", file=sys.stderr)
            complete = False
    return results, complete


def confirmed(options: HammerOptions, question: str) -> bool:
    """Whether the user says yes; -y says it for him."""
    if options.yes:
        print(f"{question} y")
        return True
    print(question, end=" ", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def count_down(options: HammerOptions, what: str) -> None:
    """Leave some seconds for ^C, unless -d."""
    print(what, end="")
    if not options.debug:
        print(" in", end="")
        for left in range(_COUNTDOWN_SECONDS, 0, -1):
            print(f" {left}", end="", flush=True)
            time.sleep(1)
        print(".. starting destruction pass", end="")
    print(flush=True)
