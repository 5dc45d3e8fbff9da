"""The original's hammer(8), where somebody has built it for this machine: a second opinion on every image.

Where it is absent nothing is asked, and the end of the test run says on how many file systems.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crash_lib.original import DAMAGE, DIRECTIVES

COMMAND = [sys.executable, "-m", "hammerfs.cli.hammer"]
VARIABLE = "HAMMERFS_ORIGINAL_HAMMER"
missed = 0
"""File systems on which there was no second opinion."""


def original() -> Path | None:
    """The program; None where no variable names one.  One that is named and not there is a failure."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    found = shutil.which(named)
    if found is None:
        pytest.fail(f"{VARIABLE}: no program {named}", pytrace=False)
    return Path(found).resolve()


def demand_original() -> Path:
    """The program; skips the test where there is none."""
    found = original()
    if found is None:
        pytest.skip(f"no second opinion: {VARIABLE} names no program")
    return found


def assert_original_agrees(*volumes: Path) -> None:
    """The original's looks at the file system print what ours print, and find nothing wrong; not where it is absent."""
    global missed
    program = original()
    if program is None:
        missed += 1
        return
    specials = ":".join(map(str, volumes))
    for directive in DIRECTIVES:
        theirs = subprocess.run([program, "-f", specials, directive], capture_output=True, check=True).stdout
        ours = subprocess.run([*COMMAND, "-f", specials, directive], capture_output=True, check=True).stdout
        assert theirs == ours
        assert not DAMAGE.search(theirs)
