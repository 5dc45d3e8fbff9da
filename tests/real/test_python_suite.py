"""Python's own tests of files, with their temporary directory on the mount.

What fails on the machine's own file system as well is not held against us.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hammer_mount import HammerMount

pytestmark = [pytest.mark.real, pytest.mark.mount, pytest.mark.slow]

MODULES = (
    "test_os", "test_shutil", "test_tarfile", "test_mmap", "test_posix", "test_pathlib", "test_largefile", "test_fcntl",
)  # fmt: skip
SECONDS_MAX = 900
PASSED_CASES_MIN = 1000


def interpreter_with_tests() -> str | None:
    """An interpreter that has its own tests: built from source, or Debian's with libpython3-testsuite."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            found = subprocess.run([candidate, "-c", "import test.test_os"], capture_output=True, check=False)
        except OSError:
            continue
        if found.returncode == 0:
            return candidate
    return None


def outcomes(interpreter: str, temporary: Path, report: Path) -> tuple[set[str], int, str]:
    """Run the tests there: names of failed cases, how many cases ran, and the output."""
    temporary.mkdir()
    done = subprocess.run(
        [interpreter, "-m", "test", "-u", "largefile", "--tempdir", temporary, "--junit-xml", report, *MODULES],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS_MAX,
        check=False,
    )
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {
        str(case.get("name")) for case in cases if case.find("error") is not None or case.find("failure") is not None
    }
    if done.returncode and not failed:
        failed = {"the run as a whole"}
    return failed, len(cases), done.stdout.decode(errors="backslashreplace")


def test_python_tests_of_files(hammer: HammerMount, tmp_path: Path) -> None:
    interpreter = interpreter_with_tests()
    if interpreter is None:
        pytest.skip("no interpreter here has Python's own tests")
    failed, count, output = outcomes(interpreter, hammer.path / "tmp", tmp_path / "report.xml")
    assert count > PASSED_CASES_MIN
    if failed:
        failed -= outcomes(interpreter, tmp_path / "tmp", tmp_path / "reference.xml")[0]
    assert not failed, output[-20_000:]
