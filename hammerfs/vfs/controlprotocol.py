"""The words that go over a mount's control socket, for both of its ends.

A message is one line of JSON.  The client sends a request:

    {"hammerfs": 1, "operation": "synctid", "node": 1, "arguments": {}, "seconds": 0}

`node` is the inode number that stat(2) shows of the object that the request is about; the client keeps it open until
the answer has come.  `seconds` above 0 is when the work is asked to stop.  The server answers with any number of

    {"phase": "deleting", "total": 1200}   {"done": 300}   {"item": {...}}   {"data": 4096} and then 4096 bytes
    {"receive": 65536}, to be answered by {"data": N} and N bytes, 0 of them at the end

and one of these, after which the client may send its next request:

    {"result": {...}}    {"error": "sentence", "errno": 30, "exit_code": 2}

`{"stop": true}` meanwhile asks the work to stop where it can be taken up again.  A client that closes the connection
ends it there and then.  Names are text as Python's `os.fsdecode` makes it, with lone surrogates for odd bytes.
"""

from __future__ import annotations

import json
from typing import Any, Final

from hammerfs.errors import UsageError

VERSION: Final = 1
LINE_BYTES_MAX: Final = 1024 * 1024
DATA_BYTES_MAX: Final = 1024 * 1024
"""Most bytes behind one `data` line."""


def encode(message: dict[str, Any]) -> bytes:
    """A message as its line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """A line as the message it holds; UsageError when it holds none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not a control message: {error}") from None
    if not isinstance(message, dict):
        raise UsageError("not a control message: an object was expected")
    return message


def data_size(message: dict[str, Any]) -> int:
    """How many bytes follow a `data` line; UsageError when that cannot be."""
    size = message.get("data")
    if type(size) is not int or not 0 <= size <= DATA_BYTES_MAX:
        raise UsageError("not a control message: an impossible size of data")
    return size
