"""All operations by name, and the one way to begin one."""

from __future__ import annotations

from hammerfs.errors import ReadOnlyError, UsageError
from hammerfs.fs.work import Work
from hammerfs.ops import (
    administer_mirror,
    administer_pfs,
    administer_snapshots,
    administer_space,
    administer_statistics,
    administer_status,
    administer_sync,
    administer_version,
    administer_volumes,
    history,
)
from hammerfs.ops.operation import Call, Operation, Result

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for module in (
        administer_sync,
        administer_status,
        administer_statistics,
        administer_version,
        administer_volumes,
        administer_snapshots,
        administer_space,
        administer_pfs,
        administer_mirror,
        history,
    )
    for operation in module.OPERATIONS
}


def find(name: str) -> Operation:
    """The operation of that name; UsageError when there is none."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise UsageError(f"this version knows no operation '{name}'")
    return operation


def begin(operation: Operation, call: Call) -> Work[Result]:
    """The operation's work; ReadOnlyError when it would have to change what cannot be changed."""
    if operation.changes and call.fs.ctx.read_only:
        raise ReadOnlyError("the file system is read-only")
    return operation.work(call)
