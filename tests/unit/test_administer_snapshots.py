"""Snapshot records and the cleanup configuration."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from administration import ask
from small_filesystem import START_US, assert_clean, fresh, make, mount, names

from hammerfs.errors import NoSpaceError, ReadOnlyError, UsageError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.rootrecords import snapshots
from hammerfs.fs.work import Want
from hammerfs.ondisk.constants import VERSION_SNAPSHOT_RECORDS
from hammerfs.ops import administer_snapshots


def tids(fs: FileSystem) -> list[int]:
    return [item["tid"] for item in ask(fs, "snapshot-list")["snapshots"]]


def test_a_snapshot_shows_what_was_accepted_before_it_and_nothing_later() -> None:
    devices = fresh()
    fs = mount(devices)
    make(fs, fs.root, b"before", b"content")
    added = ask(fs, "snapshot-add", label="a note")
    make(fs, fs.root, b"after", b"content")
    then = fs.lookup(fs.root, b"@@0x%016x" % added["tid"])
    assert names(fs, then) == [b"before"]
    (listed,) = ask(fs, "snapshot-list")["snapshots"]
    assert (listed["tid"], listed["label"]) == (added["tid"], "a note")
    assert listed["time_us"] > START_US
    fs.close_now()
    assert_clean(devices)
    assert tids(mount(devices, read_only=True)) == [added["tid"]]


def test_snapshots_are_listed_in_the_order_of_their_moments() -> None:
    fs = mount(fresh())
    made = []
    for number in range(20):
        make(fs, fs.root, b"%d" % number)
        made.append(ask(fs, "snapshot-add")["tid"])
    assert tids(fs) == made == sorted(made)


def test_a_state_without_changes_is_one_snapshot() -> None:
    """The record's own TID lies behind the state that it names."""
    fs = mount(fresh())
    first = ask(fs, "snapshot-add", label="first")["tid"]
    assert first < ask(fs, "synctid")["tid"]
    assert len(tids(fs)) == 1


def test_who_adds_a_snapshot_learns_whether_it_is_his(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then he may take it back."""
    fs = mount(fresh())
    first = ask(fs, "snapshot-add", label="first")
    assert first["added"]

    def same_moment(_fs: FileSystem) -> Generator[Want, None, int]:
        yield from ()
        return int(first["tid"])

    monkeypatch.setattr(administer_snapshots, "synchronized", same_moment)
    assert ask(fs, "snapshot-add", label="second") == {**first, "added": False}
    assert [item["label"] for item in ask(fs, "snapshot-list")["snapshots"]] == ["first"]


def test_removed_snapshots_leave_no_history() -> None:
    devices = fresh()
    fs = mount(devices)
    made = [ask(fs, "snapshot-add", label=str(number))["tid"] for number in range(3)]
    assert ask(fs, "snapshot-remove", tids=[made[1], 4711, -1, 1 << 70]) == {"pfs": 0, "absent": [4711, -1, 1 << 70]}
    assert tids(fs) == [made[0], made[2]]
    assert ask(fs, "snapshot-remove", tids=made)["absent"] == [made[1]]
    fs.close_now()
    assert_clean(devices)
    assert not snapshots(mount(devices, read_only=True).ctx, 0)


def test_each_pfs_has_snapshots_and_a_configuration_of_its_own() -> None:
    fs = mount(fresh())
    ask(fs, "pfs-create")
    inside = fs.lookup(fs.root, b"@@-1:00001")
    ask(fs, "snapshot-add", inside, label="inside")
    ask(fs, "config-set", inside, text="inside\n")
    assert not tids(fs)
    assert ask(fs, "config-get")["text"] is None
    assert [item["label"] for item in ask(fs, "snapshot-list", inside)["snapshots"]] == ["inside"]
    assert ask(fs, "config-get", inside) == {"pfs": 1, "text": "inside\n"}


@pytest.mark.parametrize("label", ["", "x" * 63, "\udcff\udcfe", "ü" * 31])
def test_labels_come_back_as_they_were(label: str) -> None:
    fs = mount(fresh())
    ask(fs, "snapshot-add", label=label)
    assert ask(fs, "snapshot-list")["snapshots"][0]["label"] == label


def test_a_label_is_cut_to_what_the_field_holds() -> None:
    fs = mount(fresh())
    ask(fs, "snapshot-add", label="x" * 200)
    assert ask(fs, "snapshot-list")["snapshots"][0]["label"] == "x" * 63


def test_the_configuration_is_replaced_without_history() -> None:
    devices = fresh()
    fs = mount(devices)
    for text in ("#\n", "snapshots 1d 60d\n", "x" * 1023, ""):
        ask(fs, "config-set", text=text)
        assert ask(fs, "config-get")["text"] == text
    fs.close_now()
    assert_clean(devices)


@pytest.mark.parametrize("text", ["x" * 1024, "a\0b"])
def test_a_configuration_that_does_not_fit_is_refused(text: str) -> None:
    fs = mount(fresh())
    ask(fs, "config-set", text="kept")
    with pytest.raises(UsageError):
        ask(fs, "config-set", text=text)
    assert ask(fs, "config-get")["text"] == "kept"


@pytest.mark.parametrize("version", [1, 2])
def test_before_version_3_there_are_no_records(version: int) -> None:
    devices = fresh(version)
    fs = mount(devices)
    for operation, arguments in (
        ("snapshot-add", {}),
        ("snapshot-remove", {"tids": [1]}),
        ("config-set", {"text": ""}),
    ):
        with pytest.raises(UsageError, match="upgrade the filesystem to version 3"):
            ask(fs, operation, **arguments)
    make(fs, fs.root, b"before")
    made = ask(fs, "snapshot-add", legacy=True)
    assert not made["added"]
    tid = made["tid"]
    assert names(fs, fs.lookup(fs.root, b"@@0x%016x" % tid)) == [b"before"]
    assert not tids(fs)
    fs.close_now()
    assert_clean(devices)


@pytest.mark.parametrize("version", range(VERSION_SNAPSHOT_RECORDS, 8))
def test_every_later_version_keeps_them(version: int) -> None:
    devices = fresh(version)
    fs = mount(devices)
    tid = ask(fs, "snapshot-add", label="note")["tid"]
    ask(fs, "config-set", text="text")
    fs.close_now()
    assert_clean(devices)
    again = mount(devices, read_only=True)
    assert tids(again) == [tid]
    assert ask(again, "config-get")["text"] == "text"


def test_what_is_read_only_is_told_but_not_changed() -> None:
    fs = mount(fresh(), read_only=True)
    assert ask(fs, "snapshot-list")["snapshots"] == []
    assert ask(fs, "synctid")["tid"]
    for operation in ("snapshot-add", "snapshot-remove", "config-set"):
        with pytest.raises(ReadOnlyError):
            ask(fs, operation)


def test_on_a_full_file_system_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = mount(fresh())

    def full(size: int = 0) -> None:
        raise NoSpaceError("no space left for a change")

    monkeypatch.setattr(type(fs.ctx.space), "check_change", lambda self, size=0: full(size))
    with pytest.raises(NoSpaceError):
        ask(fs, "snapshot-add")
    assert not fs.read_only
    assert not tids(fs)
