"""Compiled modules do what the sources do: models, recovery, cut power and damage, in a process of such modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPLORATION = (
    "tests/crash/test_exploration.py::test_every_state_that_a_power_cut_leaves_is_recovered_to_what_was_promised"
)
SUITE = (
    "tests/model",
    "tests/crash/test_recovery_crash.py",
    "tests/crash/test_mirror_crash.py",
    "tests/faults/test_bit_flips.py",
    "tests/unit/test_btree_tree.py",
    "tests/unit/test_buffers.py",
    "tests/unit/test_namespace.py",
    "tests/unit/test_filedata.py",
    *(f"{EXPLORATION}[{plan}]" for plan in ("mixed", "names", "data", "redo")),
)
KEPT_OUT = "not would_be_taken_without_new_numbers"
CRASH_SECONDS = "30"
"""For all plans; so a few of them get their share of this."""
SECONDS_MAX = 600


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_modules")
def test_compiled_modules_hold_what_the_sources_hold() -> None:
    """A test that replaces parts of hammerfs cannot be among them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-k", KEPT_OUT, *SUITE],
        env={
            **environment,
            "HAMMERFS_PURE": "",
            "HAMMERFS_TEST_COMPILED": "1",
            "HAMMERFS_CRASH_SECONDS": CRASH_SECONDS,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]
