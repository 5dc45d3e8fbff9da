"""docs/locking.md lists every function that gives way, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {"vfs/dispatch.py"}
"""Told in its own docstring: it is the loop that everything else runs in."""


def suspending_functions() -> set[str]:
    """`path: Class.function` of all functions below fs and vfs that await anything."""
    found = set()
    for folder in ("fs", "vfs"):
        for path in sorted((ROOT / "hammerfs" / folder).glob("*.py")):
            name = f"{folder}/{path.name}"
            if name not in LEFT_OUT:
                found |= {f"{name}: {function}" for function in _suspending(ast.parse(path.read_text()), "")}
    return found


def _suspending(node: ast.AST, prefix: str) -> Iterator[str]:
    """Inner functions count as the one around them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _suspending(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            kinds = ast.Await | ast.AsyncWith | ast.AsyncFor
            if any(isinstance(inner, kinds) for inner in ast.walk(child)):
                yield prefix + child.name


def section(title: str) -> str:
    text = (ROOT / "docs" / "locking.md").read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_checkpoint_is_listed() -> None:
    listed = re.findall(r"^\| `((?:fs|vfs)/\w+\.py: [\w.]+)` \|", section("Checkpoints"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == suspending_functions()


def test_every_primitive_is_listed() -> None:
    """Whatever trio or threading offers for waiting, and is made below fs, store and vfs, has its row."""
    rows = section("Primitives")
    made = re.compile(r"self\.(\w+) = (?:trio|threading)\.[\w.]*(?:Lock|Event|ParkingLot)\(")
    for folder in ("fs", "store", "vfs"):
        for path in sorted((ROOT / "hammerfs" / folder).glob("*.py")):
            if f"{folder}/{path.name}" in LEFT_OUT:
                continue
            for name in made.findall(path.read_text()):
                assert f".{name}`" in rows, f"{path.name}: {name}"
