"""Developers' programs: git, and a C program built by make."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hammer_mount import FULL, HammerMount, run
from sample_tree import library_files

pytestmark = [pytest.mark.real, pytest.mark.mount, pytest.mark.slow]

GIT_ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}
COMMITTED_FILES = 3000 if FULL else 600
C_MODULES = 100 if FULL else 20


def contents(top: Path) -> dict[str, bytes]:
    """Every file below `top` but git's own."""
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(top).parts
    }


@pytest.mark.programs("git")
def test_git(hammer: HammerMount, tmp_path: Path) -> None:
    repository = hammer.path / "repository"
    repository.mkdir()
    environment = {**GIT_ENVIRONMENT, "HOME": str(tmp_path)}

    def git(*arguments: str) -> str:
        return run("git", "-c", "safe.directory=*", *arguments, cwd=repository, env=environment)

    git("init", "-q")
    for number, source in enumerate(library_files()[:COMMITTED_FILES]):
        target = repository / f"directory-{number % 30}" / f"{number}-{source.name}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    git("add", ".")
    git("commit", "-q", "-m", "first")
    first = contents(repository)
    for number, name in enumerate(sorted(first)):
        if number % 3 == 0:
            (repository / name).write_text(f"changed {number}")
        elif number % 3 == 1:
            (repository / name).unlink()
    (repository / "directory-2").rename(repository / "moved")
    git("add", "--all")
    git("commit", "-q", "-m", "second")
    second = contents(repository)
    assert git("status", "--short") == ""
    hammer.remount()
    git("fsck", "--full", "--strict")
    assert git("status", "--short") == ""
    assert contents(repository) == second
    git("gc", "-q", "--prune=now")
    git("checkout", "-q", "HEAD~1")
    hammer.remount()
    assert contents(repository) == first
    git("fsck", "--full", "--strict")
    git("checkout", "-q", "-")
    assert contents(repository) == second


def write_c_program(top: Path, modules: int) -> None:
    """A program of that many modules, a library of half of them, and its Makefile."""
    calls = []
    for number in range(modules):
        (top / f"module{number}.h").write_text(f"int value{number}(int);\n")
        (top / f"module{number}.c").write_text(
            f'#include "module{number}.h"\nint value{number}(int x) {{ return x + {number}; }}\n'
        )
        calls.append(f"    x = value{number}(x);")
    includes = "\n".join(f'#include "module{number}.h"' for number in range(modules))
    (top / "main.c").write_text(
        f"#include <stdio.h>\n{includes}\nint main(void) {{\n    int x = 0;\n"
        + "\n".join(calls)
        + '\n    printf("%d\\n", x);\n    return 0;\n}\n'
    )
    inside = " ".join(f"module{number}.o" for number in range(modules // 2))
    outside = " ".join(f"module{number}.o" for number in range(modules // 2, modules))
    (top / "Makefile").write_text(
        f"program: main.o {outside} library.a\n\tcc -o $@ $^\n"
        f"library.a: {inside}\n\trm -f $@ && ar rc $@ $^ && ranlib $@\n"
        "%.o: %.c\n\tcc -O1 -c -o $@ $<\n"
    )


@pytest.mark.programs("make", "cc", "ar")
def test_c_program(hammer: HammerMount) -> None:
    top = hammer.path / "source"
    top.mkdir()
    write_c_program(top, C_MODULES)
    expected = f"{sum(range(C_MODULES))}\n"
    run("make", "-j2", cwd=top)
    assert run(top / "program") == expected
    hammer.remount()
    assert run(top / "program") == expected
    assert subprocess.run(["make", "-q"], cwd=top, check=False).returncode == 0, "times of files were not kept"
    (top / "module1.c").write_text("int value1(int x) { return x + 1001; }\n")
    rebuilt = run("make", cwd=top)
    assert "module1.c" in rebuilt
    assert "module2.c" not in rebuilt
    assert run(top / "program") == f"{sum(range(C_MODULES)) + 1000}\n"
