"""Golden images as devices: unpacked once, read through overlays, closed when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from judge import Golden, Manifest


@pytest.fixture
def images(golden_manifest: Callable[[str], Manifest], golden_original: Callable[[str], Path]) -> Iterator[Golden]:
    """Opens golden images by their manifest's name."""
    with ExitStack() as stack:
        yield Golden(golden_manifest, golden_original, stack)
