"""Who asks on a mount that only root gets into, where the kernel checks no permissions.

FUSE looks at the real, effective and saved user and lets root in.  A program of root that acts for somebody else by
setfsuid(2), as an NFS server does, gets in too, and what it asks for then must not be granted unchecked.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, Final

from pyfuse3 import FUSEError, SetattrFields

_FOR_EVERYBODY: Final = {"getattr", "statfs"}
"""Requests that no permission guards."""


def is_guarded(handler: Callable[..., object]) -> bool:
    """Whether a handler's last argument is the `RequestContext` of somebody who may need a permission."""
    code = handler.__code__
    return code.co_varnames[code.co_argcount - 1] == "ctx" and handler.__name__ not in _FOR_EVERYBODY


def refuse_strangers(args: Sequence[Any]) -> None:
    """FUSEError(EACCES) for a guarded request that is made for anybody but root.

    Times are the exception: the kernel tells them when it likes, in the name of whoever runs at that moment.
    """
    if args[-1].uid == 0:
        return
    for fields in args:
        if isinstance(fields, SetattrFields) and not (
            fields.update_mode or fields.update_uid or fields.update_gid or fields.update_size
        ):
            return
    raise FUSEError(errno.EACCES)
