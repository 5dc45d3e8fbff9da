"""From sources to a folder of extension modules: mypyc writes C, and the machine's C compiler does the rest.

mypyc leaves the second half to setuptools, which would take one file after the other.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from hammerfs.compiled import GROUP, SHARED

# Asked for here, once: threads that ask for the first of these settings at a time may get nothing.
COMPILER, LINKER = (shlex.split(sysconfig.get_config_var(name)) for name in ("CC", "LDSHARED"))
HEADERS = sysconfig.get_path("include")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
COMPILER_FLAGS = (
    *("-c", "-O2", "-g0", "-w", "-fPIC", "-fwrapv", "-DNDEBUG", "-ffunction-sections"),
    # Nobody outside calls these functions by name; saying so spares each call a jump through a table.
    *("-fvisibility=hidden", "-fno-semantic-interposition", "-fno-plt"),
)
LINKER_FLAGS = ("-Wl,-O1,--gc-sections,-Bsymbolic,-z,now",)
TRANSLATE = """
import json, sys
from mypyc.build import mypycify

library, result, *files = sys.argv[1:]
extensions = mypycify(["--config-file", "setup.cfg", *files], group_name=library, multi_file=True)
with open(result, "w") as file:
    json.dump([[each.name, each.sources, each.include_dirs] for each in extensions], file)
"""
Extension: TypeAlias = tuple[str, list[str], list[str]]
"""Dotted name, C files, folders of headers."""


class CompileError(Exception):
    """Why there are no compiled modules: what a program said that failed."""


def build(project: Path, work: Path, target: Path) -> None:
    """Compile a project's modules into a new folder `target`; `work` is an empty folder for what comes in between.

    The sources are those that `work / "hammerfs"` holds afterwards, whoever writes into the project meanwhile.
    """
    shutil.copytree(project / "hammerfs", work / "hammerfs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(project / "setup.cfg", work)
    files = [f"{module.replace('.', '/')}.py" for module in sorted(GROUP)]
    _run([sys.executable, "-c", TRANSLATE, SHARED, "extensions.json", *files], work)
    extensions: list[Extension] = json.loads((work / "extensions.json").read_text())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for _ in threads.map(lambda unit: _compile(unit[0], unit[1], work), _translation_units(extensions, work)):
            pass
        for _ in threads.map(lambda extension: _link(extension, work, target), extensions):
            pass


def _translation_units(extensions: Sequence[Extension], work: Path) -> list[tuple[str, list[str]]]:
    """C files with their folders of headers, the longest first, so that no processor waits for a last long one."""
    units = {source: folders for _, sources, folders in extensions for source in sources}
    return sorted(units.items(), key=lambda unit: -(work / unit[0]).stat().st_size)


def _compile(source: str, folders: Sequence[str], work: Path) -> None:
    headers = [f"-I{folder}" for folder in (*folders, HEADERS)]
    _run([*COMPILER, *COMPILER_FLAGS, *headers, source, "-o", _object(source)], work)


def _link(extension: Extension, work: Path, target: Path) -> None:
    name, sources, _ = extension
    module = target.joinpath(*name.split("."))
    module = module.with_name(module.name + SUFFIX)
    module.parent.mkdir(parents=True, exist_ok=True)
    _run([*LINKER, *map(_object, sources), *LINKER_FLAGS, "-o", str(module)], work)


def _object(source: str) -> str:
    return source.replace("/", "+") + ".o"


def _run(command: Sequence[str], folder: Path) -> None:
    """Run a command in a folder; CompileError with what it said when it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        raise CompileError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise CompileError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")
