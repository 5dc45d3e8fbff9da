"""The server's end of the control socket: administration of a file system while it is mounted.

FUSE brings no ioctls to a server of pyfuse3, so requests come over a Unix socket.  It lies beside the server's note
(`serverfile.py`), is called after the file system's uuid, and answers root and the user who mounted, told apart by the
peer's credentials.  Each connection is a task.  Its requests are served one after the other by operations
(`ops/registry.py`), which give way at every step, so that no FUSE request waits for long.

A client that goes away cancels what it asked for; so does the end of the mount.  Both end the work at a step, where
everything is whole.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio

from hammerfs.errors import HammerError, UsageError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Done, Emit, Phase, carry_out
from hammerfs.ops.operation import Call, Result
from hammerfs.ops.registry import begin, find
from hammerfs.vfs.controlprotocol import DATA_BYTES_MAX, LINE_BYTES_MAX, VERSION, data_size, decode, encode
from hammerfs.vfs.serverfile import own_folder

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 64
_TELL_SECONDS: Final = 0.1
"""Progress is told this often at most."""
_PEER_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""
_CHUNK: Final = 64 * 1024


class ControlSocket:
    """A listening socket in `folder`, named after the file system; OSError when there cannot be one.

    A copy of a file system has the same uuid: the second one that is mounted adds its process number.

    path -- where clients find it
    """

    def __init__(self, folder: Path, fsid: str) -> None:
        own_folder(folder)
        self.path = folder / f"{fsid}.sock"
        if _answers(self.path):
            self.path = folder / f"{fsid}-{os.getpid()}.sock"
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self.listener.bind(str(self.path))
            self.path.chmod(0o600)
            self.listener.listen(CONNECTIONS_MAX)
            self.listener.setblocking(False)
        except BaseException:
            self.listener.close()
            raise

    def close(self) -> None:
        """Nobody can connect any more."""
        self.listener.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class ControlServer:
    """Answers requests about one mount.

    fs -- the file system
    inode_of -- the inode behind a node id, as FUSE requests name it
    views_altered -- awaited after an operation that may have made what the kernel remembers of other views wrong
    """

    def __init__(
        self, fs: FileSystem, inode_of: Callable[[int], Inode], views_altered: Callable[[], Awaitable[None]]
    ) -> None:
        self._fs = fs
        self._inode_of = inode_of
        self._views_altered = views_altered
        self._connections = 0

    async def serve(self, control: ControlSocket) -> None:
        """Accept connections until cancelled."""
        accepting = trio.socket.from_stdlib_socket(control.listener)
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    connection, _ = await accepting.accept()
                except OSError as error:
                    log.warning("a client of the control socket was lost: %s", error)
                    await trio.sleep(_TELL_SECONDS)
                    continue
                nursery.start_soon(self._attend, connection)

    async def _attend(self, connection: trio.socket.SocketType) -> None:
        """One client, from its first request to its last; whatever it does is no reason to stop serving others."""
        stream = trio.SocketStream(connection)
        self._connections += 1
        try:
            async with stream:
                refusal = self._refusal(connection)
                if refusal is None:
                    await _Conversation(stream, self._perform).run()
                else:
                    await stream.send_all(encode({"error": refusal, "errno": errno.EACCES, "exit_code": 2}))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away
        except* Exception:
            log.exception("a control connection failed")
        finally:
            self._connections -= 1

    def _refusal(self, connection: trio.socket.SocketType) -> str | None:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        uid = _PEER_CREDENTIALS.unpack(raw)[1]
        if uid not in (0, os.geteuid()):
            return "only root and the user who mounted a file system may administer it"
        if self._connections > CONNECTIONS_MAX:
            return "too many clients"
        return None

    async def _perform(self, request: dict[str, Any], conversation: _Conversation) -> Result:
        if request.get("hammerfs") != VERSION:
            raise UsageError(f"the server understands version {VERSION} of the control protocol, not this one")
        name, node, arguments = request.get("operation"), request.get("node", 1), request.get("arguments", {})
        if not isinstance(name, str) or type(node) is not int or not isinstance(arguments, dict):
            raise UsageError("not a control request: operation, node or arguments are of the wrong kind")
        operation = find(name)
        call = Call(self._fs, self._inode_of(node), arguments, conversation.interrupted)
        try:
            return await carry_out(self._fs, begin(operation, call), conversation)
        finally:
            if operation.alters_views:
                with trio.CancelScope(shield=True):
                    await self._views_altered()


class _Conversation:
    """One client's requests, one after the other, with a task that reads what it sends meanwhile."""

    def __init__(
        self,
        stream: trio.SocketStream,
        perform: Callable[[dict[str, Any], _Conversation], Any],
    ) -> None:
        self._stream = stream
        self._perform = perform
        self._pending = b""
        self._busy = self._stop = False
        self._deadline = math.inf
        self._told_done = 0
        self._tell_at = 0.0
        self._requests, self._received = trio.open_memory_channel[dict[str, Any]](1)
        self._chunks, self._arrived = trio.open_memory_channel[bytes](0)

    def interrupted(self) -> bool:
        """Whether the request that runs should come to an end."""
        return self._stop or time.monotonic() >= self._deadline

    async def run(self) -> None:
        """Serve until the client closes the connection, which cancels what runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve)
            await self._read()
            nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        while (line := await self._line()) is not None:
            try:
                message = decode(line)
                size = data_size(message) if "data" in message else 0
                if "operation" in message and self._busy:
                    raise UsageError("one request at a time")
            except UsageError as error:
                if not self._busy:
                    await self._stream.send_all(_error(error))
                return
            if message.get("stop") is True:
                self._stop = True
            elif "data" in message:
                await self._chunks.send(await self._exactly(size))
            else:
                self._begin(message)
                await self._requests.send(message)

    def _begin(self, request: dict[str, Any]) -> None:
        """From here on a request runs, though its task has not heard of it yet."""
        self._busy, self._stop = True, False
        self._told_done, self._tell_at = 0, 0.0
        seconds = request.get("seconds", 0)
        limited = isinstance(seconds, int | float) and seconds > 0
        self._deadline = time.monotonic() + seconds if limited else math.inf

    async def _serve(self) -> None:
        async for request in self._received:
            try:
                result = await self._perform(request, self)
                await self._tell_done()
                answer = encode({"result": result})
            except (HammerError, OSError) as error:
                answer = _error(error)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise  # the client went away
            except Exception as error:
                log.exception("the operation %r failed", request.get("operation"))
                answer = _error(error)
            self._busy = False
            await self._stream.send_all(answer)

    # --- what work says and asks for ------------------------------------------------------------
    async def tell(self, step: Phase | Done | Emit | Data) -> None:
        """Pass a step on; progress not more often than anybody can look."""
        if isinstance(step, Done):
            self._told_done += step.amount
            if time.monotonic() >= self._tell_at:
                await self._tell_done()
            return
        await self._tell_done()
        if isinstance(step, Phase):
            await self._stream.send_all(encode({"phase": step.name, "total": step.total}))
        elif isinstance(step, Emit):
            await self._stream.send_all(encode({"item": step.item}))
        else:
            view = memoryview(step.content)
            for start in range(0, len(view), DATA_BYTES_MAX):
                piece = view[start : start + DATA_BYTES_MAX]
                await self._stream.send_all(encode({"data": len(piece)}) + bytes(piece))

    async def _tell_done(self) -> None:
        if self._told_done:
            amount, self._told_done = self._told_done, 0
            self._tell_at = time.monotonic() + _TELL_SECONDS
            await self._stream.send_all(encode({"done": amount}))

    async def receive(self, limit: int) -> bytes:
        """Ask the client for bytes."""
        await self._stream.send_all(encode({"receive": min(limit, DATA_BYTES_MAX)}))
        return await self._arrived.receive()

    # --- bytes ----------------------------------------------------------------------------------
    async def _line(self) -> bytes | None:
        """The next line; None when the client has closed the connection, or sends lines without an end."""
        while (end := self._pending.find(b"\n")) < 0:
            if len(self._pending) > LINE_BYTES_MAX or not await self._more():
                return None
        line, self._pending = self._pending[:end], self._pending[end + 1 :]
        return line

    async def _exactly(self, size: int) -> bytes:
        while len(self._pending) < size:
            if not await self._more():
                raise trio.BrokenResourceError("the client went away in the middle of its data")
        content, self._pending = self._pending[:size], self._pending[size:]
        return content

    async def _more(self) -> bool:
        chunk = await self._stream.receive_some(_CHUNK)
        self._pending += chunk
        return bool(chunk)


def _error(error: Exception) -> bytes:
    if isinstance(error, HammerError):
        return encode({"error": str(error), "errno": error.errno, "exit_code": error.exit_code})
    if isinstance(error, OSError):
        return encode({"error": error.strerror or str(error), "errno": error.errno or errno.EIO, "exit_code": 2})
    return encode({"error": f"internal error: {error!r}", "errno": errno.EIO, "exit_code": 2})
