"""Operations as plain numbers, so that a sequence of them can be drawn at random, replayed, cut short and shrunk.

A step is the name of an operation and a few numbers, which pick directories, names, sizes and so on from what there is
when the step is carried out.  Every sequence of steps means something.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from crash_lib.small import DIRECTORY, FILE, NAMED_PIPE
from crash_lib.twin import EXCHANGE, NOREPLACE, Node, Twin

MIB = 1024 * 1024
NAMES = [b"a", b"b", b"c", b"d", b"long.name-with_parts~" + b"x" * 180]
FILLER = b"filler"
"""A file that keeps space from being used."""
KINDS = [FILE, FILE, DIRECTORY, DIRECTORY, NAMED_PIPE]
SIZES = [1, 15, 16, 4096, 8191, 8192, 8193, 16383, 16384, 16385, 65536, 100_000]
OFFSETS = [0, 0, 1, 5000, 8192, 16384, 20_000, 98304, MIB - 16384, MIB - 1, MIB, MIB + 70_000, MIB + 2 * 65536]
LENGTHS = [0, 0, *SIZES, *OFFSETS]
FLAGS = [0, 0, 0, NOREPLACE, EXCHANGE]
TARGETS = [b"t" * size for size in (1, 24, 25, 1000, 4000)]
XATTRS = [b"user.one", b"user.two", b"trusted.three"]
VALUES = [b"", b"v" * 10, b"w" * 5000]

Step = tuple[str, tuple[int, ...]]
PICKS = 5
"""Numbers that a step carries; most operations need fewer."""
_T = TypeVar("_T")


def pick(items: Sequence[_T], number: int) -> _T:
    return items[number % len(items)]


def pattern(seed: int, size: int) -> bytes:
    """Bytes that differ from block to block; one seed in four gives zeros."""
    return (random.Random(seed).randbytes(61) * (size // 61 + 1))[:size] if seed % 4 else bytes(size)


def _create(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    twin.create(pick(twin.directories(), a), pick(NAMES, b), pick(KINDS, c))


def _create_file(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    """A file with a little in it."""
    parent, name = pick(twin.directories(), a), pick(NAMES, b)
    if name not in parent.entries:
        node = twin.create(parent, name)
        assert node is not None
        twin.write(node, 0, pattern(d, pick([0, 1, 400, 900], c)))


def _symlink(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    twin.symlink(pick(twin.directories(), a), pick(NAMES, b), pick(TARGETS, c))


def _link(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    twin.link(pick(twin.nodes(), a), pick(twin.directories(), b), pick(NAMES, c))


def _remove(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    twin.remove(pick(twin.directories(), a), pick(NAMES, b))


def _rename(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    directories = twin.directories()
    twin.rename(pick(directories, a), pick(NAMES, b), pick(directories, c), pick(NAMES, d), pick(FLAGS, e))


def _move_existing(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    """Like `_rename`, but of something that is there."""
    places = [(parent, name) for parent in twin.directories() for name in parent.entries]
    if places:
        parent, name = pick(places, a)
        twin.rename(parent, name, pick(twin.directories(), c), pick(NAMES, d), pick(FLAGS, e))


def _write(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    if files := twin.files():
        twin.write(pick(files, a), pick(OFFSETS, b), pattern(d, pick(SIZES, c)))


def _patch(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    """A small piece somewhere, or at the end."""
    if files := twin.files():
        node = pick(files, a)
        offset = pick([0, 30, 448, 4096, 16_000, 16_384, *[len(node.content)] * 3], b)
        twin.write(node, offset, pattern(d, pick([1, 40, 400, 448, 449, 2000, 9000, 20_000], c)))


def _rewrite(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    """All of a file anew: megabytes, so that big-blocks are filled and freed."""
    filler = twin.root.entries.get(FILLER)
    if files := [node for node in twin.files() if node is not filler]:
        twin.write(files[0], 0, pattern(4 * d + 1, 4 * MIB))


def _repeat(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    """One of three contents in whole blocks, which another file may hold already."""
    if files := twin.files():
        twin.write(pick(files, a), pick([0, 0, 65536, MIB], b), pattern(4 * (d % 3) + 1, pick([65536, 4 * 65536], c)))


def _truncate(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    if files := twin.files():
        twin.truncate(pick(files, a), pick(LENGTHS, b))


def _chmod(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    twin.chmod(pick(twin.nodes(), a), b & 0o7777, c, d)


def _touch(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    node = pick(twin.nodes(), a)
    if b % 4:
        twin.touch(node, c if b % 4 & 1 else None, d if b % 4 & 2 else None)
    else:
        twin.touch_as_written(node)


def _set_xattr(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    twin.set_xattr(pick(twin.nodes(), a), pick(XATTRS, b), pick(VALUES, c))


def _remove_xattr(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    twin.remove_xattr(pick(twin.nodes(), a), pick(XATTRS, b))


def _open(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    twin.open(pick(twin.nodes(), a))


def _release(twin: Twin, a: int, b: int, c: int, d: int, e: int) -> None:
    if twin.handles:
        twin.release(pick(twin.handles, a))


OPERATIONS: dict[str, Callable[[Twin, int, int, int, int, int], None]] = {
    "create": _create,
    "symlink": _symlink,
    "link": _link,
    "remove": _remove,
    "rename": _rename,
    "move": _move_existing,
    "write": _write,
    "truncate": _truncate,
    "chmod": _chmod,
    "touch": _touch,
    "set_xattr": _set_xattr,
    "remove_xattr": _remove_xattr,
    "open": _open,
    "release": _release,
    "rewrite": _rewrite,
    "patch": _patch,
    "repeat": _repeat,
    "create_file": _create_file,
}
WEIGHTS = {
    "create": 6,
    "remove": 3,
    "rename": 3,
    "move": 3,
    "write": 6,
    "truncate": 2,
    "rewrite": 0,
    "patch": 0,
    "repeat": 0,
    "create_file": 0,
}
_DRAWN = [name for name in OPERATIONS for _ in range(WEIGHTS.get(name, 1))]


def carry_out(twin: Twin, step: Step) -> None:
    name, numbers = step
    OPERATIONS[name](twin, *numbers)


def random_step(source: random.Random, drawn: Sequence[str] = _DRAWN) -> Step:
    return source.choice(drawn), tuple(source.randrange(1 << 12) for _ in range(PICKS))


def random_steps(seed: int, count: int) -> list[Step]:
    source = random.Random(seed)
    return [random_step(source) for _ in range(count)]


def pick_node(twin: Twin, number: int) -> Node:
    """Any object that can be named or is open."""
    return pick([*twin.nodes(), *twin.handles], number)
