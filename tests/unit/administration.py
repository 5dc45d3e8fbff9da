"""Operations on small file systems in memory, as a directive calls them offline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Aside, LocalListener, run_work
from hammerfs.ops.operation import Call
from hammerfs.ops.registry import begin, find


def ask(
    fs: FileSystem,
    operation: str,
    place: Inode | None = None,
    listener: LocalListener | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    **arguments: Any,
) -> dict[str, Any]:
    """The result of an operation about `place`, the root when it is None."""
    call = Call(fs, place or fs.root, arguments, interrupted, exclusive=True)
    return run_work(fs, begin(find(operation), call), listener)


def steps_of(fs: FileSystem, operation: str, **arguments: Any) -> Generator[object, None, None]:
    """What an operation's work yields; whoever lets go of it in the middle is a client that went away."""
    with closing(begin(find(operation), Call(fs, fs.root, arguments))) as work:
        for step in work:
            if isinstance(step, Aside):
                step.call()
            yield step


def stop_after(fs: FileSystem, operation: str, count: int, **arguments: Any) -> bool:
    """Begin an operation and go away after `count` steps; False when it had ended before."""
    with closing(steps_of(fs, operation, **arguments)) as steps:
        taken = sum(1 for _ in itertools.islice(steps, count))
    return taken == count
