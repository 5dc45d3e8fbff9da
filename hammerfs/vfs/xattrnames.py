"""Which extended attributes there may be, and who is shown them: xattr(7).

The kernel knows who may read and write which attribute; what it leaves to a file system are names in namespaces that
nobody serves, and lists.  Below this floor a name is bytes.
"""

from __future__ import annotations

import errno
from typing import Final

from hammerfs.errors import FileOperationError
from hammerfs.vfs.acl import ACCESS_NAME, DEFAULT_NAME

_TRUSTED: Final = b"trusted."
_NAMESPACES: Final = (b"user.", _TRUSTED, b"security.")


def check_name(name: bytes) -> None:
    """Raise EOPNOTSUPP for a name in a foreign namespace, EINVAL for a namespace without a name."""
    if name in _NAMESPACES:
        raise FileOperationError(errno.EINVAL)
    if not name.startswith(_NAMESPACES) and name not in (ACCESS_NAME, DEFAULT_NAME):
        raise FileOperationError(errno.EOPNOTSUPP)


def is_listed(name: bytes, uid: int) -> bool:
    """Whether a user is told of an attribute: trusted ones are shown to those who may read them."""
    return uid == 0 or not name.startswith(_TRUSTED)
