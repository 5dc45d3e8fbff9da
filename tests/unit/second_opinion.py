"""The original's hammer(8), where somebody has built it for this machine: a second opinion on every image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "hammerfs.cli.hammer"]
ORIGINAL = os.environ.get("HAMMERFS_ORIGINAL_HAMMER", "hammer-original")


def assert_original_agrees(*volumes: Path) -> None:
    """The original's show and checkmap print what ours print, and find nothing wrong; nothing where it is absent."""
    if shutil.which(ORIGINAL) is None:
        return
    specials = ":".join(map(str, volumes))
    for directive in ("show", "checkmap"):
        theirs = subprocess.run([ORIGINAL, "-f", specials, directive], capture_output=True, check=True).stdout
        ours = subprocess.run([*COMMAND, "-f", specials, directive], capture_output=True, check=True).stdout
        assert theirs == ours
        assert not re.search(rb"(?m)^(B|.*\d+ (errors|bad ))", theirs)
