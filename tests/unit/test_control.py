"""The control socket: who may ask, what is answered, and what happens when a client goes away."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from flusher_control import until
from small_filesystem import fresh, make, mount

from hammerfs.errors import HammerError, ReadOnlyError, UsageError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Done, Emit, Phase, Receive, Want, Work
from hammerfs.ops import registry
from hammerfs.ops.operation import Call, Operation, Result
from hammerfs.vfs import controlclient
from hammerfs.vfs.control import ControlServer, ControlSocket
from hammerfs.vfs.controlclient import Connection, RefusedError
from hammerfs.vfs.controlprotocol import LINE_BYTES_MAX, decode, encode
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, Mount

pytestmark = pytest.mark.trio

HERE = Mount("0:99", "/mnt", FILESYSTEM_KIND, "x.img", 0)
UUID = "3f0c1d52-7a51-4f0e-8c39-00a0c9e5b0f1"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for a socket, whose name must have fewer than 108 bytes; pytest's own folders grow longer than that."""
    with tempfile.TemporaryDirectory(prefix="hammerfs-") as folder:
        yield Path(folder)


def _talk(call: Call) -> Work[Result]:
    yield Phase("counting", 3)
    for _ in range(3):
        yield Done(1)
    yield Emit({"name": "\udcff", "node": call.place.obj_id})
    yield Data(b"ab" * 1_500_000)
    taken = b""
    while content := (yield Receive(1 << 30)):
        taken += content
    return {"taken": len(taken), "word": call.text("word", "none")}


begun: list[str] = []
ended: list[str] = []


def _forever(call: Call) -> Work[Result]:
    begun.append("forever")
    try:
        while not call.interrupted():
            yield Want.PAUSE
    except GeneratorExit:
        ended.append("cancelled")
        raise
    return {"stopped": True}


def _bug(call: Call) -> Work[Result]:
    yield from ()
    raise ZeroDivisionError


def _refuse(call: Call) -> Work[Result]:
    yield from ()
    raise ReadOnlyError("not here")


@pytest.fixture(autouse=True)
def operations(monkeypatch: pytest.MonkeyPatch) -> None:
    begun.clear()
    ended.clear()
    for operation in (
        Operation("talk", _talk),
        Operation("forever", _forever),
        Operation("bug", _bug),
        Operation("refuse", _refuse),
        Operation("alter", _refuse, changes=True, alters_views=True),
    ):
        monkeypatch.setitem(registry.OPERATIONS, operation.name, operation)


class Hearing:
    """Writes down what it hears, and supplies what it was given."""

    def __init__(self, *supplies: bytes) -> None:
        self.heard: list[Any] = []
        self.content = b""
        self._supplies = list(supplies)

    def phase(self, name: str, total: int) -> None:
        self.heard.append((name, total))

    def advance(self, amount: int) -> None:
        self.heard.append(amount)

    def item(self, item: dict[str, Any]) -> None:
        self.heard.append(item)

    def data(self, content: bytes) -> None:
        self.content += content

    def supply(self, limit: int) -> bytes:
        return self._supplies.pop(0)[:limit] if self._supplies else b""

    def wait(self, answer: int) -> None:
        assert answer >= 0


class Served:
    """A file system with its control socket."""

    def __init__(self, fs: FileSystem, path: Path) -> None:
        self.fs = fs
        self.path = path
        self.altered = 0

    async def views_altered(self) -> None:
        self.altered += 1

    async def ask(self, action: Callable[[Connection], Any]) -> Any:
        """Run a client in a thread, since the server has this one."""

        def client() -> Any:
            with socket.socket(socket.AF_UNIX) as stream:
                stream.connect(str(self.path))
                connection = Connection(stream, HERE, 1)
                try:
                    return action(connection)
                finally:
                    connection.close()

        return await trio.to_thread.run_sync(client)


@asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[Served]:
    fs = mount(fresh(), **options)

    def inode_of(node: int) -> Inode:
        return fs.inode(fs.root.localization, node, fs.root.as_of)

    control = ControlSocket(folder, UUID)
    here = Served(fs, control.path)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            nursery.start_soon(ControlServer(fs, inode_of, here.views_altered).serve, control)
            yield here
            nursery.cancel_scope.cancel()
    finally:
        control.close()


async def test_a_request_is_answered_piece_by_piece(short_path: Path) -> None:
    async with served(short_path) as here:
        hearing = Hearing(b"x" * 10, b"y" * 5)
        result = await here.ask(lambda connection: connection.request("talk", {"word": "hello"}, hearing))
        assert result == {"taken": 15, "word": "hello"}
        assert hearing.heard[0] == ("counting", 3)
        assert sum(item for item in hearing.heard if isinstance(item, int)) == 3
        assert hearing.heard[-1] == {"name": "\udcff", "node": 1}
        assert hearing.content == b"ab" * 1_500_000


async def test_synctid_names_a_durable_state(short_path: Path) -> None:
    async with served(short_path) as here:
        make(here.fs, here.fs.root, b"before", b"content")
        tid = (await here.ask(lambda connection: connection.request("synctid", {}, Hearing())))["tid"]
        assert here.fs.flusher is not None
        assert not here.fs.flusher.haswork()
        make(here.fs, here.fs.root, b"after", b"content")
        await here.fs.sync()
        then = here.fs.lookup(here.fs.root, b"@@0x%016x" % tid)
        assert [entry.name for entry in here.fs.readdir(then, 0)] == [b"before"]


async def test_requests_follow_each_other_on_one_connection(short_path: Path) -> None:
    def client(connection: Connection) -> list[int]:
        found = []
        for _ in range(3):
            found.append(connection.request("synctid", {}, Hearing())["tid"])
            with pytest.raises(RefusedError):
                connection.request("refuse", {}, Hearing())
        return found

    async with served(short_path) as here:
        assert len(set(await here.ask(client))) == 1


async def test_refusals_keep_their_errno(short_path: Path) -> None:
    def client(connection: Connection) -> None:
        for operation, arguments, words in (
            ("refuse", {}, "not here"),
            ("nonsense", {}, "no operation 'nonsense'"),
            ("talk", {"word": 5}, "'word' has to be a text"),
        ):
            with pytest.raises(RefusedError, match=words) as refusal:
                connection.request(operation, arguments, Hearing())
            assert refusal.value.errno == (ReadOnlyError.errno if operation == "refuse" else UsageError.errno)
        connection.node = 0x7777777
        with pytest.raises(RefusedError, match="No such file"):
            connection.request("talk", {}, Hearing())

    async with served(short_path) as here:
        await here.ask(client)


@pytest.mark.parametrize("goes", ["to the end", "away"])
async def test_a_client_that_goes_away_cancels_what_it_asked_for(goes: str, short_path: Path) -> None:
    async with served(short_path) as here, trio.open_nursery() as nursery:
        stream = await trio.open_unix_socket(str(here.path))
        await stream.send_all(encode({"hammerfs": 1, "operation": "forever", "node": 1}))
        await until(lambda: bool(begun))
        if goes == "away":
            await stream.aclose()
            with trio.fail_after(10):
                await until(lambda: here.fs.works == 0)
            assert ended == ["cancelled"]
        else:
            await stream.send_all(encode({"stop": True}))
            with trio.fail_after(10):
                answer = json.loads(await stream.receive_some(1000))
            assert answer == {"result": {"stopped": True}}
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert ended == (["cancelled"] if goes == "away" else [])


async def test_a_request_may_have_an_end_set(short_path: Path) -> None:
    async with served(short_path) as here:
        ask = here.ask(lambda connection: connection.request("forever", {}, Hearing(), seconds=0.05))
        with trio.fail_after(10):
            assert await ask == {"stopped": True}


@pytest.mark.expect_log("'bug' failed", "read-only from now on")
async def test_a_defect_is_told_and_ends_the_writing(short_path: Path) -> None:
    def client(connection: Connection) -> None:
        with pytest.raises(RefusedError, match="internal error"):
            connection.request("bug", {}, Hearing())
        with pytest.raises(RefusedError, match="read-only"):
            connection.request("alter", {}, Hearing())

    async with served(short_path) as here:
        await here.ask(client)


async def test_an_operation_that_changes_is_refused_by_what_is_read_only(short_path: Path) -> None:
    def client(connection: Connection) -> None:
        with pytest.raises(RefusedError, match="the file system is read-only"):
            connection.request("alter", {}, Hearing())

    async with served(short_path, read_only=True) as here:
        await here.ask(client)
        assert here.altered == 1


async def test_strangers_are_refused(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def client(connection: Connection) -> None:
        with pytest.raises(RefusedError, match="only root and the user who mounted"):
            connection.request("synctid", {}, Hearing())

    async with served(short_path) as here:
        mine = os.geteuid()
        monkeypatch.setattr("hammerfs.vfs.control._PEER_CREDENTIALS", Peer(mine + 4711))
        await here.ask(client)
        monkeypatch.setattr("hammerfs.vfs.control._PEER_CREDENTIALS", Peer(mine))
        await here.ask(lambda connection: connection.request("synctid", {}, Hearing()))


async def test_a_refusal_that_came_before_the_question_is_heard() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(encode({"error": "only root may ask", "errno": 13, "exit_code": 2}))
    theirs.close()
    connection = Connection(ours, HERE, 1)
    with pytest.raises(RefusedError, match="only root may ask"):
        connection.request("synctid", {}, Hearing())
    with pytest.raises(HammerError, match="the server has ended"):
        connection.request("synctid", {}, Hearing())
    connection.close()


class Peer:
    """Credentials of a client with that uid."""

    size = 12

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def unpack(self, raw: bytes) -> tuple[int, int, int]:
        assert len(raw) == self.size
        return 1, self._uid, 0


@pytest.mark.parametrize(
    "nonsense",
    [b"\n", b"[]\n", b"{\n", b'{"data": -1}\n', b"\xff\n", b'{"hammerfs": 2}\n', b'{"hammerfs": 1, "operation": 7}\n'],
)
async def test_nonsense_is_answered_by_a_sentence(nonsense: bytes, short_path: Path) -> None:
    async with served(short_path) as here:
        stream = await trio.open_unix_socket(str(here.path))
        async with stream:
            await stream.send_all(nonsense)
            answer = decode(await stream.receive_some(4000))
        assert "control" in answer["error"]
        await here.ask(lambda connection: connection.request("synctid", {}, Hearing()))


async def test_a_line_without_end_ends_the_conversation(short_path: Path) -> None:
    async with served(short_path) as here:
        stream = await trio.open_unix_socket(str(here.path))
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x" * (64 * LINE_BYTES_MAX))
        await here.ask(lambda connection: connection.request("synctid", {}, Hearing()))


async def test_the_end_of_the_mount_ends_what_runs(short_path: Path) -> None:
    async with served(short_path) as here:
        stream = await trio.open_unix_socket(str(here.path))
        await stream.send_all(encode({"hammerfs": 1, "operation": "forever", "node": 1}))
        await until(lambda: bool(begun))
    assert ended == ["cancelled"]
    await stream.aclose()


async def test_copies_have_sockets_of_their_own(short_path: Path) -> None:
    with closing(ControlSocket(short_path, "uuid")) as first, closing(ControlSocket(short_path, "uuid")) as second:
        assert first.path == short_path / "uuid.sock"
        assert second.path != first.path
        assert first.path.stat().st_mode & 0o077 == 0
    assert not list(short_path.iterdir())


async def test_a_dead_socket_is_taken_over(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(short_path / "uuid.sock"))
    with closing(ControlSocket(short_path, "uuid")) as again:
        assert again.path == short_path / "uuid.sock"


@pytest.fixture
def mounted_here(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> Mount:
    device = short_path.stat().st_dev
    mount = Mount(f"{os.major(device)}:{os.minor(device)}", str(short_path), FILESYSTEM_KIND, "x.img", os.geteuid())
    monkeypatch.setattr(controlclient, "mounts", lambda: [mount])
    monkeypatch.setattr(controlclient, "note_path", lambda device, uid: short_path / device)
    return mount


async def test_a_client_says_what_is_in_the_way(mounted_here: Mount, short_path: Path) -> None:
    def complaint(path: str) -> str:
        with pytest.raises(UsageError) as refusal, controlclient.connected(path):
            pass
        return str(refusal.value)

    assert "No such file" in complaint(str(short_path / "absent"))
    assert "does not lie on a mounted HAMMER" in complaint("/proc")
    assert "has left no word" in complaint(str(short_path))
