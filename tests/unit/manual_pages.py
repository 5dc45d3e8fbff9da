"""The manual pages in docs/man: their words, and the examples in them, run again and compared with what they show.

An example is a display whose lines begin with `$ ` where something is typed.  A comment above it says where it runs:

    .\\" example: image      in a folder with disk.img, an image with a short past that nobody has mounted
    .\\" example: mounting   the same, where something can be mounted
    .\\" example: mount      in a folder with disk.img, fresh, mounted on mnt
    .\\" example: told WHY   nowhere

All examples of one kind in a page run in one folder, in their order.  What differs from run to run (TIDs, uuids, times)
is compared by what equals what: a TID of the page stands for one TID of the run wherever it occurs, in commands, too.
Times are not compared.  A line `...` stands for any lines.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "man"
PAGES = ("hammerfs.1", "undo.1", "hammer.5", "hammer.8", "mkfs.hammer.8", "mount.hammer.8")
IMAGE, MOUNTING, MOUNT = "image", "mounting", "mount"
SECONDS_MAX = 120
SHOWN_FOLDER = "/srv"
"""What examples show for the folder that they run in."""
GAP = "..."

_PROGRAMS = {
    "hammerfs": "main",
    "hammer": "hammer",
    "undo": "undo",
    "mkfs.hammer": "mkfs",
    "mount.hammer": "mount_helper",
}
_KIND = re.compile(r'\.\\" example: (image|mounting|mount|told(?= .))')
_ESCAPES = {"\\e": "\\", "\\(aq": "'", "\\(ga": "`", "\\(ti": "~", "\\(ha": "^", "\\-": "-", "\\&": ""}
_ESCAPE = re.compile(r"\\(?:\(..|.)")
_UNLIKE = re.compile(
    r"(?P<number>\b(?:0x)?[0-9a-f]{16}\b)|(?P<uuid>\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b)"
    r"|(?P<time>\b\d\d-[A-Z][a-z]{2}-\d{4} [\d:]{8}|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: \+0000| UTC)?"
    r"|\b\d{8}-\d{4}\b|\b[A-Z][a-z]{2} +\d+ \d\d:\d\d\b)"
)
_BLANKS = re.compile(r"[ \t]+")


@dataclass
class Step:
    """What is typed, and what is shown after it."""

    line: int
    command: str
    shown: list[str] = field(default_factory=list)


@dataclass
class Example:
    """A display of a page: how it runs, and its steps."""

    kind: str
    steps: list[Step]


def source(page: str) -> str:
    """The mdoc source of a page."""
    return (FOLDER / page).read_text()


def plain(line: str) -> str:
    """A line of a display as readers see it."""
    return _ESCAPE.sub(lambda match: _ESCAPES[match[0]], line)


def words(text: str) -> str:
    """The text of a source with its macros, without escapes: what to look for words in."""
    return "\n".join(plain(line) for line in text.splitlines() if not line.startswith('.\\"'))


def section(page: str, title: str) -> str:
    """The source of a section or subsection, with the subsections of the former."""
    lines = source(page).splitlines()
    start = next(number for number, line in enumerate(lines) if line in (f".Sh {title}", f".Ss {title}"))
    ends = (".Sh",) if lines[start].startswith(".Sh") else (".Sh", ".Ss")
    end = next((number for number in range(start + 1, len(lines)) if lines[number].startswith(ends)), len(lines))
    return "\n".join(lines[start:end])


def examples(page: str) -> Iterator[Example]:
    """All examples; AssertionError for one that does not say how it runs."""
    lines = source(page).splitlines()
    number = 0
    while number < len(lines):
        if not lines[number].startswith(".Bd -literal"):
            number += 1
            continue
        kind, start = _KIND.match(lines[number - 1]), number + 1
        number = lines.index(".Ed", start)
        steps = list(_steps(lines[start:number], start + 1))
        if steps:
            assert kind is not None, f"{page}:{start}: the example does not say how it runs"
            yield Example(kind[1], steps)


def _steps(lines: Sequence[str], first: int) -> Iterator[Step]:
    step: Step | None = None
    for number, line in enumerate(map(plain, lines), first):
        if line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(number, line[2:])
        elif step is not None and step.command.endswith("\\"):
            step.command += "\n" + line
        elif step is not None:
            step.shown.append(line)
    if step is not None:
        yield step


class Session:
    """Runs examples in a folder, and knows which TID of the page is which of the run."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder.resolve()
        self._of_page: dict[str, str] = {}
        self._of_run: dict[str, str] = {}
        write_programs(programs)
        self._environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }

    def output(self, command: str) -> list[str]:
        """The lines that a command of a page prints, errors among them."""
        done = subprocess.run(
            ["bash", "-c", _UNLIKE.sub(lambda match: self._of_page.get(match[0], match[0]), command)],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS_MAX,
            check=False,
        )
        return [line.replace(str(self._folder), SHOWN_FOLDER) for line in done.stdout.splitlines()]

    def complaint(self, step: Step) -> str | None:
        """Run a step; what is not as the page shows it."""
        found = self.output(step.command)
        if self._same(step.shown, found):
            return None
        return "\n".join([f"line {step.line}: $ {step.command}", *found, "--- and not", *step.shown])

    def _same(self, shown: Sequence[str], found: Sequence[str]) -> bool:
        if GAP in shown:
            before = list(shown[: shown.index(GAP)])
            rest = list(shown[shown.index(GAP) + 1 :])
            if len(found) < len(before) or not self._same(before, found[: len(before)]):
                return False
            return any(self._same_if_so(rest, found[start:]) for start in range(len(before), len(found) + 1))
        return len(shown) == len(found) and all(map(self._same_line, map(_of_this_machine, shown), found))

    def _same_if_so(self, shown: Sequence[str], found: Sequence[str]) -> bool:
        """`_same`, and nothing is learned where it is not."""
        known = {**self._of_page}, {**self._of_run}
        if self._same(shown, found):
            return True
        self._of_page, self._of_run = known
        return False

    def _same_line(self, shown: str, found: str) -> bool:
        here, there = list(_UNLIKE.finditer(shown)), list(_UNLIKE.finditer(found))
        if _form(shown) != _form(found) or len(here) != len(there):
            return False
        pairs = [(one[0], other[0]) for one, other in zip(here, there, strict=True) if one.lastgroup != "time"]
        known = {**self._of_page}, {**self._of_run}
        for one, other in pairs:
            if known[0].setdefault(one, other) != other or known[1].setdefault(other, one) != one:
                return False
        self._of_page, self._of_run = known
        return True


def _form(line: str) -> str:
    """A line without what differs from run to run, and with blanks for each run of them."""
    return _BLANKS.sub(" ", _UNLIKE.sub(lambda match: f"<{match.lastgroup}>", line))


def _of_this_machine(line: str) -> str:
    """Pages were written by root, and user 1000 had no name."""
    own = pwd.getpwuid(os.geteuid()).pw_name
    line = re.sub(r"(?<= )root(?= )", own, line)
    try:
        return re.sub(r"(?<= )1000(?= )", pwd.getpwuid(1000).pw_name, line)
    except KeyError:
        return line


def write_programs(folder: Path) -> None:
    """Our programs under their names, as they are installed."""
    folder.mkdir(exist_ok=True)
    for name, module in _PROGRAMS.items():
        code = f"import sys; sys.argv[0] = '{name}'; from hammerfs.cli.{module} import main; sys.exit(main())"
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -c "{code}" "$@"\n')
        program.chmod(0o755)


def complaints(page: str, kind: str, session: Session) -> Iterator[str]:
    """Run all examples of a kind; what is not as shown."""
    for example in examples(page):
        if example.kind == kind:
            yield from filter(None, map(session.complaint, example.steps))
