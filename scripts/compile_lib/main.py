"""`scripts/compile`: compiles what does not fit the sources any more, and tells what it did in one line."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from compile_lib.build import CompileError, build
from hammerfs import compiled

PROJECT = Path(__file__).resolve().parents[2]
KEPT = 6
"""So many entries stay, the youngest ones: work trees may share an environment, and a program may be starting."""
EXIT_FAILED = 1

EPILOG = """
Needs mypy and a C compiler. Programs take compiled modules as long as they were made from the very sources that are
there, and the sources otherwise; nobody has to compile. With HAMMERFS_PURE=1 in its environment a program runs the
sources all the same.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="compile", description=__doc__, epilog=EPILOG)
    parser.add_argument("--force", action="store_true", help="even if that is done, or has failed for these sources")
    force = parser.parse_args(arguments).force
    store = compiled.store()
    target = store / compiled.fingerprint(PROJECT / "hammerfs")
    log = target.with_suffix(".log")
    if not force and target.is_dir():
        os.utime(target)
        return 0
    if not force and log.exists():
        print(f"compile: failed before for these sources; {log} tells why", file=sys.stderr)
        return EXIT_FAILED
    if find_spec("mypyc") is None:
        print("compile: mypy is not installed", file=sys.stderr)
        return EXIT_FAILED
    print(f"compile: compiling {len(compiled.GROUP)} modules, for a minute or two", file=sys.stderr)
    started = time.monotonic()
    store.mkdir(exist_ok=True)
    try:
        _fill(store)
    except CompileError as error:
        log.write_text(f"{error}\n")
        print(f"compile: {str(error).splitlines()[0]} {log} has it all", file=sys.stderr)
        return EXIT_FAILED
    log.unlink(missing_ok=True)
    print(f"compile: done in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


def _fill(store: Path) -> None:
    """Compile the project into its folder of the store, which shows the folder only when it is complete."""
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=store) as name:
        work, made = Path(name, "work"), Path(name, "made")
        work.mkdir()
        build(PROJECT, work, made)
        target = store / compiled.fingerprint(work / "hammerfs")
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    for old in sorted(store.iterdir(), key=_age)[KEPT:]:
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def _age(path: Path) -> float:
    return -path.stat().st_mtime
