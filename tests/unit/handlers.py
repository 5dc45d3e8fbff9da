"""The FUSE handlers called as pyfuse3 calls them, without a kernel."""

from __future__ import annotations

from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar

import pyfuse3
import pytest

USER: Any = SimpleNamespace(uid=1000, gid=100, pid=1, umask=0o22)
T = TypeVar("T")


def call(handler: Coroutine[Any, Any, T]) -> T:
    """The answer of a handler that must not wait for anything."""
    try:
        handler.send(None)
    except StopIteration as done:
        answer: T = done.value
        return answer
    pytest.fail("the handler waited")


def errno_of(handler: Coroutine[Any, Any, object]) -> int:
    """The errno with which a handler refuses."""
    with pytest.raises(pyfuse3.FUSEError) as caught:
        call(handler)
    return caught.value.errno
