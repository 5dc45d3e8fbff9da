"""The units for systemd: what they say holds, and systemd takes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from hammerfs.cli import hammer
from hammerfs.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
UNITS = [ROOT / "systemd" / f"hammerfs-cleanup.{kind}" for kind in ("service", "timer")]


def unit(path: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(path)
    return parser


def test_an_installation_brings_all_units() -> None:
    settings = unit(ROOT / "setup.cfg")
    listed = settings["options.data_files"]["lib/systemd/system"].split()
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "systemd").iterdir())


def test_the_service_runs_a_command_that_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *words = unit(UNITS[0])["Service"]["ExecStart"].split()
    scripts = unit(ROOT / "setup.cfg")["options.entry_points"]["console_scripts"]
    assert f"{program} = hammerfs.cli.main:main" in scripts
    assert hammer.is_meant(words)
    monkeypatch.setattr("hammerfs.cli.directive_cleanup.mounts", list)
    assert main(words) == 0, capsys.readouterr().err


def test_the_timer_starts_the_service() -> None:
    timer = unit(UNITS[1])
    assert "Unit" not in timer["Timer"], "a timer starts the service of its own name"
    assert timer["Timer"]["Persistent"] == "true"
    assert timer["Install"]["WantedBy"] == "timers.target"


def test_systemd_takes_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    program = Path(sys.executable).with_name("hammerfs")
    if not program.exists():
        pytest.skip(f"{program} is not there: hammerfs runs without being installed")
    for path in UNITS:
        text = path.read_text().replace("ExecStart=hammerfs ", f"ExecStart={program} ")
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / path.name for path in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    calendar = unit(UNITS[1])["Timer"]["OnCalendar"]
    subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, check=True)
