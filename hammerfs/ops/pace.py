"""Long looks at a file system in short steps, for whoever wants to let others run in between."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Paced: TypeAlias = Generator[None, None, T]
"""Yields where others may run, and returns the result."""

STEP_RECORDS = 200
"""Records between two pauses: about a millisecond's worth."""


def at_once(steps: Paced[T]) -> T:
    """The result, without pauses."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def numbered(items: Iterable[T]) -> Iterator[tuple[bool, T]]:
    """Each item, and whether a pause is due before it."""
    return ((count % STEP_RECORDS == 0, item) for count, item in enumerate(items, 1))
