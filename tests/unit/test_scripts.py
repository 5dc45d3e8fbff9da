"""The programs of scripts/ start wherever they are called from, whatever Python comes first there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PATH_WITHOUT_PROJECT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS_MAX = 30


@pytest.mark.parametrize("name", ["bench", "crashtest", "fuzz"])
def test_a_program_finds_what_it_needs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPTS / name, "--help"],
        cwd=tmp_path,
        env={"PATH": PATH_WITHOUT_PROJECT},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name} ")
