"""The power is cut while a slave is mirrored to: readers see the state before or the one after, and it can go on."""

from __future__ import annotations

from administration import ask
from mirror_pair import batch, complete, make_slave, mirror, settle, slave_root, synced, tree
from small_filesystem import assert_clean, fresh, make, mount, recorded

from hammerfs.device.recording import Write, drop_all, keep_all
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Done, Emit, Phase
from hammerfs.ondisk.mirror import Sync, packed


class Sender:
    """Gives a stream out in small pieces."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream

    def tell(self, step: Phase | Done | Emit | Data) -> None:
        """Nobody asks."""

    def receive(self, limit: int) -> bytes:
        piece, self._stream = self._stream[:7001], self._stream[7001:]
        assert len(piece) <= limit
        return piece


def source_with_two_states() -> FileSystem:
    fs = mount(fresh())
    for number in range(150):
        make(fs, fs.root, b"file%d" % number, b"%d" % number * 500)
    return fs


def go_on(fs: FileSystem) -> None:
    """What is to be mirrored: something of everything."""
    for number in range(0, 150, 2):
        fs.write(fs.lookup(fs.root, b"file%d" % number), 100, b"changed")
    for number in range(1, 60, 2):
        fs.unlink(fs.root, b"file%d" % number)
    for number in range(100):
        make(fs, fs.root, b"new%d" % number, b"%d" % number * 900)


def test_the_power_is_cut_while_a_slave_is_mirrored_to() -> None:
    source, plain = source_with_two_states(), fresh()
    target = mount(plain)
    make_slave(target)
    mirror(source, target)
    before, since = tree(source, source.root), synced(target)
    target.close_now()
    go_on(source)
    end = settle(source)
    after = tree(source, source.root)
    records = batch(source, since + 1, end)
    devices, log = recorded(plain)
    target = mount(devices)
    assert target.flusher is not None
    target.flusher.cycle._meta_limit = 128 * 1024
    stream = b"".join(map(packed, [*records, Sync()]))
    assert ask(target, "mirror-write", None, Sender(stream), pfs=1, begin=1, end=end)["complete"]
    assert tree(target, slave_root(target)) == before
    ask(target, "mirror-synced", pfs=1, tid=end)
    target.close_now()
    barriers = {at for at, entry in enumerate(log.entries) if not isinstance(entry, Write)}
    assert len(barriers) > 12, "the batch was to take several cycles"
    cuts = [log.power_cut(at, choose) for at in sorted({0, *barriers}) for choose in (drop_all, keep_all)]
    cuts += [images for _, images in log.random_power_cuts(11, 10)]
    seen = []
    for images in [*cuts, log.power_cut(len(log.entries), drop_all)]:
        again = mount(images)
        shown = tree(again, slave_root(again))
        assert shown == (before if synced(again) == since else after)
        seen.append(synced(again))
        complete(again, batch(source, synced(again) + 1, end), end)
        assert tree(again, slave_root(again)) == after
        again.close_now()
        assert_clean(images)
    assert set(seen) == {since, end}
    assert seen[-1] == end
