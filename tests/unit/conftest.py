"""What many of these tests begin with: a small file system in memory, and its FUSE handlers."""

from __future__ import annotations

import pytest
from small_filesystem import fresh, mount

from hammerfs.fs.mount import FileSystem
from hammerfs.vfs.operations import HammerOperations, operations_for


@pytest.fixture
def fs() -> FileSystem:
    return mount(fresh())


@pytest.fixture
def operations(fs: FileSystem) -> HammerOperations:
    return operations_for(fs)
