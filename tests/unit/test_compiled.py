"""Compiled modules are taken as long as they fit the sources, all of them or none, and by programs alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hammerfs import compiled

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from hammerfs.cli.main import main

sys.argv = ["hammerfs", "--help"]
try:
    main()
except SystemExit:
    pass
import hammerfs.fs.mount, hammerfs.ondisk.element, hammerfs.ops.check
from hammerfs import compiled
files = {module: sys.modules[module].__file__ for module in compiled.GROUP if module in sys.modules}
assert len({file.endswith(".py") for file in files.values()}) == 1, files
print("RUNS", "sources" if files["hammerfs.fs.mount"].endswith(".py") else "compiled", compiled.in_use())
"""
LIBRARY = "import hammerfs.fs.mount as module; print('RUNS', module.__file__)"
GONE = """
import sys
from pathlib import Path
from hammerfs import compiled

sys.prefix = sys.argv[1]
Path(compiled.store(), compiled.fingerprint()).mkdir(parents=True)
compiled.use()
import hammerfs.cli.mount
"""


def run(program: str, *arguments: str, tree: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a Python program says that finds hammerfs in a tree."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, compiled.PURE: "", "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )


def runs(program: str, tree: Path = ROOT, **environment: str) -> str:
    """The program's last line."""
    done = run(program, tree=tree, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].removeprefix("RUNS ")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package, for editing."""
    shutil.copytree(ROOT / "hammerfs", tmp_path / "hammerfs", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edit(file: Path) -> None:
    file.write_text(f"{file.read_text()}\n# One more line, and another file.\n")


# --- the fingerprint ----------------------------------------------------------------------------
def test_the_group_is_made_of_modules_that_the_fingerprint_covers() -> None:
    assert compiled.GROUP
    for module in compiled.GROUP:
        assert module.split(".")[1] in compiled.FLOORS
        assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()


@pytest.mark.parametrize("name", ["errors.py", "compiled.py", "btree/tree.py", "fs/inode.py", "ondisk/constants.py"])
def test_every_source_that_matters_counts(tree: Path, name: str) -> None:
    before = compiled.fingerprint(tree / "hammerfs")
    assert before == compiled.fingerprint()
    edit(tree / "hammerfs" / name)
    assert compiled.fingerprint(tree / "hammerfs") != before


def test_new_and_lost_sources_count(tree: Path) -> None:
    seen = {compiled.fingerprint(tree / "hammerfs")}
    (tree / "hammerfs/btree/tree.py").rename(tree / "hammerfs/btree/other.py")
    seen.add(compiled.fingerprint(tree / "hammerfs"))
    (tree / "hammerfs/store/more.py").touch()
    seen.add(compiled.fingerprint(tree / "hammerfs"))
    (tree / "hammerfs/fs/strays.py").unlink()
    seen.add(compiled.fingerprint(tree / "hammerfs"))
    assert len(seen) == 4


def test_commands_do_not_count(tree: Path) -> None:
    edit(tree / "hammerfs/cli/main.py")
    assert compiled.fingerprint(tree / "hammerfs") == compiled.fingerprint()


# --- who gets them ------------------------------------------------------------------------------
@pytest.mark.usefixtures("compiled_modules")
def test_a_program_takes_what_fits(tree: Path) -> None:
    assert runs(PROGRAM) == "compiled True"
    assert runs(PROGRAM, tree) == "compiled True"


@pytest.mark.usefixtures("compiled_modules")
def test_an_edited_source_is_what_runs(tree: Path) -> None:
    edit(tree / "hammerfs/store/undo.py")
    assert runs(PROGRAM, tree) == "sources False"


@pytest.mark.usefixtures("compiled_modules")
def test_who_wants_the_sources_gets_them() -> None:
    assert runs(PROGRAM, HAMMERFS_PURE="1") == "sources False"


def test_a_library_is_made_of_sources() -> None:
    assert runs(LIBRARY) == str(ROOT / "hammerfs/fs/mount.py")


def test_nothing_changes_once_a_source_is_in_use() -> None:
    program = "import hammerfs.btree.node; from hammerfs import compiled; compiled.use(); print(compiled.in_use())"
    assert runs(program) == "False"


def test_a_module_that_is_gone_is_not_replaced_by_its_source(tmp_path: Path) -> None:
    done = run(GONE, str(tmp_path))
    assert done.returncode == 1
    assert f"ImportError: {tmp_path}" in done.stderr
