"""The repository checks itself: floors, the one door to devices, sizes, words that do not belong.

Each rule is a function from a module's source to its complaints. `test_the_project_is_tidy` applies
it to what is there, and `test_the_rule_can_fail` to a few lines that break it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOORS = {
    "compiled": 0,
    "errors": 0,
    "ondisk": 1,
    "device": 2,
    "store": 3,
    "btree": 4,
    "fs": 5,
    "ops": 6,
    "vfs": 7,
    "cli": 7,
}
FLOOR_OF_THE_FORMAT = 1
FLOOR_OF_THE_FIRST_TASKS = 5
NOT_PURE = {"io", "os", "pathlib", "random", "secrets", "socket", "threading", "time"}
DEVICE_CALLS = {"fdatasync", "fsync", "pread", "preadv", "pwrite", "pwritev"}

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 500

# Letters in brackets, since this file is read like every other.
BANNED_WORDS = re.compile(r"\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K|NotImplemented[E]rror|simpl[i]fied)\b", re.IGNORECASE)
HOST_PATH = re.compile(r"(?<![\w.~*$}>-])/(work|root|home)(?![\w.-])")

Rule = Callable[[str, ast.Module], Iterator[str]]


def module_name(path: Path) -> str:
    """Dotted name of a source file, a package's `__init__` standing for the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor_of(module: str) -> int | None:
    """The floor a module is on; None outside of hammerfs and for `hammerfs` itself."""
    parts = module.split(".")
    return FLOORS.get(parts[1]) if parts[0] == "hammerfs" and len(parts) > 1 else None


def imports(module: str, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted names that a module imports, each with its line; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, node.module or ""]).strip(".")
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# ------------------------------------------------------------------------------------------------
# the rules


def imports_only_from_below(module: str, tree: ast.Module) -> Iterator[str]:
    own = floor_of(module)
    for name, line in imports(module, tree):
        other = floor_of(name)
        if own is not None and other is not None and other > own:
            yield f"{module}:{line}: floor {own} imports {name} of floor {other}"


def has_a_floor(module: str, tree: ast.Module) -> Iterator[str]:
    if module.startswith("hammerfs.") and floor_of(module) is None:
        yield f"{module}: on no floor; docs/architecture.md and FLOORS name them all"


def imports_at_the_top(module: str, tree: ast.Module) -> Iterator[str]:
    """A late import hides a cycle; only commands may load late, what another command needs."""
    if module.startswith("hammerfs.cli"):
        return
    for function in functions(tree):
        for name, line in imports(module, function):
            if name.startswith("hammerfs"):
                yield f"{module}:{line}: {function.name} imports {name} late"


def keeps_fuse_in_vfs(module: str, tree: ast.Module) -> Iterator[str]:
    for name, line in imports(module, tree):
        if name.split(".")[0] == "pyfuse3" and not module.startswith("hammerfs.vfs"):
            yield f"{module}:{line}: imports pyfuse3 outside of hammerfs.vfs"


def keeps_the_core_pure(module: str, tree: ast.Module) -> Iterator[str]:
    """The format knows no machine, and nothing below the flusher knows tasks."""
    floor = floor_of(module)
    if floor is None:
        return
    for name, line in imports(module, tree):
        top = name.split(".")[0]
        if floor < FLOOR_OF_THE_FIRST_TASKS and top == "trio":
            yield f"{module}:{line}: imports trio on floor {floor}"
        if floor == FLOOR_OF_THE_FORMAT and top in NOT_PURE:
            yield f"{module}:{line}: imports {top} into the pure format"


def keeps_io_in_device(module: str, tree: ast.Module) -> Iterator[str]:
    if module.startswith("hammerfs.device"):
        return
    names = [
        (f"{node.value.id}.{node.attr}", node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    for name, line in [*names, *imports(module, tree)]:
        package, _, call = name.rpartition(".")
        if package in {"os", "posix"} and call in DEVICE_CALLS:
            yield f"{module}:{line}: {name} outside of hammerfs.device"


def has_a_docstring(module: str, tree: ast.Module) -> Iterator[str]:
    if ast.get_docstring(tree) is None:
        yield f"{module}: does not say what it is for"


def has_short_functions(module: str, tree: ast.Module) -> Iterator[str]:
    for function in functions(tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{module}:{function.lineno}: {function.name} has {lines} lines"


RULES: list[Rule] = [
    imports_only_from_below,
    has_a_floor,
    imports_at_the_top,
    keeps_fuse_in_vfs,
    keeps_the_core_pure,
    keeps_io_in_device,
    has_a_docstring,
]


def module_size_complaint(module: str, source: str) -> str | None:
    lines = len(source.splitlines())
    return f"{module}: {lines} lines" if lines > MODULE_LINES_MAX else None


def import_graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Which of the given modules imports which at run time; names for types alone do not count."""
    graph: dict[str, set[str]] = {}
    for module, tree in trees.items():
        for_types = {
            imported
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for imported in imports(module, node)
        }
        names = {name for name, line in imports(module, tree) if (name, line) not in for_types}
        homes = {name if name in trees else name.rpartition(".")[0] for name in names}
        graph[module] = (homes & trees.keys()) - {module}
    return graph


def import_cycle(trees: dict[str, ast.Module]) -> list[str]:
    try:
        TopologicalSorter(import_graph(trees)).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return []


def word_complaints(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in (BANNED_WORDS, HOST_PATH):
            if found := pattern.search(line):
                yield f"{name}:{number}: {found.group()}"


# ------------------------------------------------------------------------------------------------
# applied to the project


def package_sources() -> dict[str, str]:
    """The text of every module of the package and of the launcher, by dotted name."""
    paths = [*sorted((ROOT / "hammerfs").rglob("*.py")), ROOT / "mkfs_hammer.py"]
    return {module_name(path): path.read_text() for path in paths}


def package_trees() -> dict[str, ast.Module]:
    return {module: ast.parse(source) for module, source in package_sources().items()}


def python_paths() -> list[Path]:
    folders = ["hammerfs", "tests", "scripts"]
    return [
        *ROOT.glob("*.py"),
        *(path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))),
    ]


def text_paths() -> list[Path]:
    """Every file that a reader may open: code, tests, scripts, documents and settings."""
    others = [
        path
        for folder in ["docs", "scripts", ".ci"]
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.suffix in {"", ".md", ".sh", ".txt", ".toml", ".cfg", ".1", ".5", ".8"}
    ]
    settings = [*ROOT.glob("*.md"), *ROOT.glob("*.cfg"), *ROOT.glob("*.toml"), ROOT / ".gitignore"]
    return [*python_paths(), *others, *settings]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_is_tidy(rule: Rule) -> None:
    trees = package_trees()
    assert len(trees) > len(FLOORS)
    complaints = [text for module, tree in trees.items() for text in rule(module, tree)]
    assert not complaints, "\n".join(complaints)


def test_no_function_is_too_long() -> None:
    complaints = [
        text for path in python_paths() for text in has_short_functions(module_name(path), ast.parse(path.read_text()))
    ]
    assert not complaints, "\n".join(complaints)


def test_no_module_is_too_long() -> None:
    complaints = [module_size_complaint(*module) for module in package_sources().items()]
    assert not any(complaints), "\n".join(filter(None, complaints))


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not import_cycle(package_trees())


def test_no_words_that_do_not_belong() -> None:
    complaints = [
        text for path in text_paths() for text in word_complaints(str(path.relative_to(ROOT)), path.read_text())
    ]
    assert not complaints, "\n".join(complaints)


# ------------------------------------------------------------------------------------------------
# applied to what is wrong, and to what only looks so

BAD = [
    (imports_only_from_below, "hammerfs.ondisk.crc", "from hammerfs.device.base import Device"),
    (imports_only_from_below, "hammerfs.store.undo", "import hammerfs.btree.node"),
    (imports_only_from_below, "hammerfs.btree.tree", "from hammerfs import fs"),
    (imports_only_from_below, "hammerfs.fs.inode", "from ..ops.check import check"),
    (imports_only_from_below, "hammerfs.errors", "from hammerfs.ondisk import constants"),
    (imports_only_from_below, "hammerfs.fs.inode", "if TYPE_CHECKING:\n from hammerfs.cli import x"),
    (has_a_floor, "hammerfs.utils", "x = 1"),
    (imports_at_the_top, "hammerfs.fs.inode", "def f():\n from hammerfs.fs import mount"),
    (keeps_fuse_in_vfs, "hammerfs.fs.mount", "import pyfuse3"),
    (keeps_fuse_in_vfs, "hammerfs.cli.mount", "def f():\n from pyfuse3 import init"),
    (keeps_the_core_pure, "hammerfs.btree.tree", "import trio"),
    (keeps_the_core_pure, "hammerfs.ondisk.times", "from time import time_ns"),
    (keeps_io_in_device, "hammerfs.store.volumes", "import os\nos.pwrite(fd, b'', 0)"),
    (keeps_io_in_device, "hammerfs.store.volumes", "from os import fdatasync"),
    (keeps_io_in_device, "hammerfs.fs.finalize", "await run_sync(os.fsync, fd)"),
    (has_a_docstring, "hammerfs.fs.inode", "# nothing\nx = 1"),
    (has_short_functions, "hammerfs.fs.inode", "def f():\n" + " x = 1\n" * FUNCTION_LINES_MAX),
    (has_short_functions, "hammerfs.fs.inode", "async def f():\n" + " x = 1\n" * 200),
]
GOOD = [
    (imports_only_from_below, "hammerfs.fs.inode", "from hammerfs.fs import records\nimport os"),
    (imports_only_from_below, "hammerfs.vfs.daemon", "from hammerfs.cli import main"),
    (imports_only_from_below, "hammerfs.cli.main", "from hammerfs import __version__"),
    (imports_at_the_top, "hammerfs.cli.main", "def f():\n from hammerfs.cli import mount"),
    (keeps_fuse_in_vfs, "hammerfs.vfs.operations", "import pyfuse3"),
    (keeps_the_core_pure, "hammerfs.fs.flusher", "import trio\nimport time"),
    (keeps_io_in_device, "hammerfs.device.file", "import os\nos.pread(fd, 1, 0)"),
    (keeps_io_in_device, "hammerfs.fs.mount", "volumes.fsync(inode)"),
    (has_short_functions, "hammerfs.fs.inode", "def f():\n" + " x = 1\n" * 59),
]


@pytest.mark.parametrize(("rule", "module", "source"), BAD)
def test_the_rule_can_fail(rule: Rule, module: str, source: str) -> None:
    assert list(rule(module, ast.parse(source)))


@pytest.mark.parametrize(("rule", "module", "source"), GOOD)
def test_the_rule_lets_pass(rule: Rule, module: str, source: str) -> None:
    assert not list(rule(module, ast.parse(source)))


def test_a_long_module_is_found() -> None:
    assert module_size_complaint("m", "x = 1\n" * (MODULE_LINES_MAX + 1))
    assert module_size_complaint("m", "x = 1\n" * MODULE_LINES_MAX) is None


def test_a_circle_of_imports_is_found() -> None:
    sources = {"a": "from a import b", "a.b": "import a.c", "a.c": "from a.b import x"}
    assert set(import_cycle({name: ast.parse(text) for name, text in sources.items()})) == {
        "a.b",
        "a.c",
    }
    sources["a.c"] = "if TYPE_CHECKING:\n from a.b import x"
    assert not import_cycle({name: ast.parse(text) for name, text in sources.items()})


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("DO", "# TO{}: later"),
        ("ME", "# fix{}"),
        ("Error", "raise NotImplemented{}"),
        ("fied", "a simpli{} walk"),
        ("work", "see /{}/x"),
        ("root", "cd /{}"),
        ("home", "in '/{}/me'"),
    ],
)
def test_a_word_that_does_not_belong_is_found(word: str, line: str) -> None:
    assert list(word_complaints("f", line.format(word)))


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("XX", "mktemp x.{0}{0}{0}"),
        ("root", "fs/{}/entry"),
        ("work", "$HOME/{}"),
        ("work", "the /{}load"),
        ("do", "undo a to{}list"),
    ],
)
def test_a_harmless_word_is_let_pass(word: str, line: str) -> None:
    assert not list(word_complaints("f", line.format(word)))
