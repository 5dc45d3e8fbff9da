"""The client's end of the control socket: from any path on a mount to the server behind it, and requests to that.

The path is held open while requests about it are made: so the kernel keeps the node id, by which the server knows what
the path led to, whatever happens to names meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from hammerfs.errors import HammerError, UsageError
from hammerfs.vfs.controlprotocol import DATA_BYTES_MAX, VERSION, data_size, decode, encode
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, Mount, mounts
from hammerfs.vfs.serverfile import note_path, read_note

_CHUNK = 256 * 1024


class RefusedError(HammerError):
    """The server refused or could not do what it was asked to; errno and exit code are its own."""

    def __init__(self, sentence: str, number: int, exit_code: int) -> None:
        super().__init__(sentence)
        self.errno = number
        self.exit_code = exit_code


class Hearer(Protocol):
    """What a client does with what a request says before its result."""

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` units begins."""

    def advance(self, amount: int) -> None:
        """`amount` more of them are done."""

    def item(self, item: dict[str, Any]) -> None:
        """A part of the result."""

    def data(self, content: bytes) -> None:
        """Bytes of the result."""

    def supply(self, limit: int) -> bytes:
        """Up to `limit` bytes for the request; empty at the end."""

    def wait(self, answer: int) -> None:
        """The request is on its way, and nothing came of it yet; `answer` is the descriptor by which it will."""


class Connection:
    """A conversation with one mount's server about one path.

    mount -- where the path lies
    node -- the inode number of what it led to
    """

    def __init__(self, stream: socket.socket, mount: Mount, node: int) -> None:
        self._stream = stream
        self._reader = stream.makefile("rb", buffering=_CHUNK)
        self.mount = mount
        self.node = node

    def request(
        self, operation: str, arguments: Mapping[str, Any], hearer: Hearer, seconds: float = 0
    ) -> dict[str, Any]:
        """The operation's result; RefusedError when the server has none to give."""
        message = {
            "hammerfs": VERSION,
            "operation": operation,
            "node": self.node,
            "arguments": dict(arguments),
            "seconds": seconds,
        }
        self._send(encode(message))
        hearer.wait(self._stream.fileno())
        while True:
            answer = self._next()
            if "result" in answer:
                result: dict[str, Any] = answer["result"]
                return result
            if "error" in answer:
                raise RefusedError(answer["error"], answer["errno"], answer["exit_code"])
            self._hear(answer, hearer)

    def stop(self) -> None:
        """Ask the request that runs to come to an end; safe in a signal handler."""
        with contextlib.suppress(OSError):
            self._stream.send(encode({"stop": True}))

    def close(self) -> None:
        """End the conversation, and what is still running of it."""
        self._reader.close()
        self._stream.close()

    def _hear(self, answer: dict[str, Any], hearer: Hearer) -> None:
        if "phase" in answer:
            hearer.phase(answer["phase"], answer["total"])
        elif "done" in answer:
            hearer.advance(answer["done"])
        elif "item" in answer:
            hearer.item(answer["item"])
        elif "data" in answer:
            hearer.data(self._exactly(data_size(answer)))
        elif "receive" in answer:
            content = hearer.supply(min(answer["receive"], DATA_BYTES_MAX))
            self._send(encode({"data": len(content)}) + content)

    def _send(self, message: bytes) -> None:
        # A server that refuses a client answers and closes at once, so the answer may be there before the question
        # is out: whether there is one, reading tells.
        with contextlib.suppress(OSError):
            self._stream.sendall(message)

    def _next(self) -> dict[str, Any]:
        try:
            line = self._reader.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise _gone()
        return decode(line)

    def _exactly(self, size: int) -> bytes:
        content: bytes = self._reader.read(size)
        if len(content) < size:
            raise _gone()
        return content


def _gone() -> HammerError:
    return HammerError("the server has ended, or ended the conversation")


@contextmanager
def connected(path: str) -> Iterator[Connection]:
    """A connection about what `path` leads to, for the time of the block.

    UsageError when it does not lie on a mounted HAMMER file system, or that cannot be administered by this user.
    """
    with contextlib.ExitStack() as stack:
        held = _open(path)
        stack.callback(os.close, held)
        status = _status(held, path)
        mount = mount_of_device(status.st_dev, _real(path))
        if mount is None:
            raise UsageError(f"{path} does not lie on a mounted HAMMER file system")
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        stack.enter_context(stream)
        try:
            stream.connect(control_path(mount))
        except PermissionError:
            raise UsageError(f"{mount.path} was mounted by another user; only that user and root can do this") from None
        except OSError as error:
            raise UsageError(f"the server of {mount.path} does not answer: {error.strerror}") from None
        connection = Connection(stream, mount, status.st_ino)
        stack.callback(connection.close)
        yield connection


def mount_of_device(device: int, path: str) -> Mount | None:
    """The HAMMER file system with this device number, None when that is none of ours.

    Of the places where it is mounted the one that `path` lies below, where there is one.
    """
    name = f"{os.major(device)}:{os.minor(device)}"
    ours = [mount for mount in mounts() if mount.device == name and mount.kind == FILESYSTEM_KIND]
    above = [mount for mount in ours if mount.path == path or path.startswith(mount.path.rstrip("/") + "/")]
    return max(above, key=lambda mount: len(mount.path), default=next(iter(ours), None))


def control_path(mount: Mount) -> str:
    """The socket of a mount's server; UsageError when it has left no word of one."""
    if os.geteuid() not in (0, mount.owner):
        raise UsageError(f"{mount.path} was mounted by user {mount.owner}; only that user and root can do this")
    note = read_note(note_path(mount.device, mount.owner), mount.owner)
    if note is None or note.control is None:
        raise UsageError(f"the server of {mount.path} has left no word of where it can be reached")
    return note.control


def _real(path: str) -> str:
    """A path without symlinks, or as it is where the working directory has no path any more."""
    try:
        return os.path.realpath(path)
    except OSError:
        return path


def _status(held: int, path: str) -> os.stat_result:
    try:
        return os.fstat(held)
    except OSError as error:  # the server is gone and its mount is still there
        raise UsageError(f"{path}: {error.strerror}") from None


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
