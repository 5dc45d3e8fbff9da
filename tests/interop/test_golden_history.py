"""The history of golden images as hammerfs tells it, against what DragonFly's own ioctl and trees told of it."""

from __future__ import annotations

from typing import Any

import pytest
from judge import Golden, as_tree, closing

from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.fs.work import Deaf, run_work
from hammerfs.ops import paths
from hammerfs.ops.name_history import deleted_names
from hammerfs.ops.operation import Call
from hammerfs.ops.pace import at_once
from hammerfs.ops.registry import begin, find

IMAGE = "g2-history"
VIEWS = [f"s{number}" for number in range(1, 7)]
PERSISTENT = ("mode", "uid", "gid", "size", "sha256", "target", "uflags")
"""Fields of a manifest's entries that a difference is told of."""


def resolve(fs: FileSystem, path: str) -> Inode:
    return paths.resolve(fs, path.encode())


def ask(fs: FileSystem, operation: str, place: str = "/", **arguments: Any) -> dict[str, Any]:
    """What an operation answers about a place."""
    return run_work(fs, begin(find(operation), Call(fs, resolve(fs, place), arguments)), Deaf())


def tids(result: dict[str, Any]) -> list[str]:
    return [f"{moment['tid']:#018x}" for moment in result["moments"]]


def test_the_history_of_inodes_is_the_original_s(images: Golden) -> None:
    """The ioctl was asked before the last unmount, which added nothing."""
    with closing(images.mount(IMAGE)) as fs:
        for path, expected in images.manifest(IMAGE)["inode_history"].items():
            result = ask(fs, "history", path=path)
            assert f"{result['obj_id']:#018x}" == expected["objid"]
            assert tids(result) == [entry["tid"] for entry in expected["entries"]], path
            assert [moment["seconds"] for moment in result["moments"]] == [
                entry["time32"] for entry in expected["entries"]
            ]
            assert not result["dirty"]


def test_the_history_of_data_is_the_original_s(images: Golden) -> None:
    with closing(images.mount(IMAGE)) as fs:
        for expected in images.manifest(IMAGE)["key_history"]:
            result = ask(fs, "history", path=expected["path"], offset=expected["key"])
            assert tids(result) == expected["tids"], expected


def test_every_version_that_the_manifest_lists_is_a_moment_of_its_name(images: Golden) -> None:
    with closing(images.mount(IMAGE)) as fs:
        for version in images.manifest(IMAGE)["file_versions"]:
            path, _, tid = version["path"].partition("@@")
            inode = resolve(fs, f"{path}@@{tid}")
            assert inode.data.size == version["size"]
            parent, _, name = path.rpartition("/")
            log = ask(fs, "log", parent, name=name)["entries"]
            shown = next(entry for entry in log if entry["tid"] <= int(tid, 16))
            assert (shown["size"], f"{shown['obj_id']:#018x}") == (version["size"], version["objid"])


@pytest.mark.parametrize("label", VIEWS)
def test_deleted_names_are_those_of_earlier_views(label: str, images: Golden) -> None:
    """What an earlier view shows and a later one does not is deleted in the later one, and can be seen again."""
    manifest = images.manifest(IMAGE)
    tid = manifest[f"view_{label}"]["tid"]
    earlier = {
        name
        for older in VIEWS[: VIEWS.index(label)]
        for path in as_tree(manifest[f"tree_asof_{older}"])
        if "/" not in (name := path[1:])
    }
    present = {path[1:] for path in as_tree(manifest[f"tree_asof_{label}"])}
    with closing(images.mount(IMAGE)) as fs:
        top = resolve(fs, f"@@{tid}")
        gone = {name.name.decode(): name for name in at_once(deleted_names(fs.ctx, top))}
        assert earlier - present <= gone.keys()
        assert not gone.keys() & present
        for name, told in gone.items():
            inode = resolve(fs, f"{name}@@0x{told.last_tid:016x}")
            assert (inode.obj_id, inode.data.size) == (told.obj_id, told.size)


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in VIEWS for new in VIEWS])
def test_differences_between_views_are_those_of_the_manifest_s_trees(old: str, new: str, images: Golden) -> None:
    manifest = images.manifest(IMAGE)
    before, after = as_tree(manifest[f"tree_asof_{old}"]), as_tree(manifest[f"tree_asof_{new}"])
    with closing(images.mount(IMAGE)) as fs:
        moments = {"before": f"@@{manifest[f'view_{old}']['tid']}", "after": f"@@{manifest[f'view_{new}']['tid']}"}
        changes = ask(fs, "diff", **moments)["changes"]
    renamed = {f"/{change['old_path']}": f"/{change['path']}" for change in changes if change["kind"] == "renamed"}
    names = {kind: {f"/{c['path']}" for c in changes if c["kind"] == kind} for kind in ("added", "removed", "modified")}

    def moved(path: str) -> str:
        """Where a path of the earlier tree is in the later one."""
        for source in sorted(renamed, key=len, reverse=True):
            if path == source or path.startswith(source + "/"):
                return renamed[source] + path[len(source) :]
        return path

    kept = {path: moved(path) for path in before if path not in names["removed"]}
    assert set(kept.values()) | names["added"] == set(after)
    assert not set(kept.values()) & names["added"]
    for path, later in kept.items():
        differs = any(before[path].get(field) != after[later].get(field) for field in PERSISTENT)
        told = next((c for c in changes if f"/{c['path']}".rstrip("/.") == later.rstrip("/") and c["what"]), None)
        assert (told is not None) == differs, (path, later)


def test_a_time_leads_to_the_newest_change_that_is_not_later(images: Golden) -> None:
    """All of the image was written in one second."""
    with closing(images.mount(IMAGE)) as fs:
        assert ask(fs, "moment", time_us=1_609_999_999_999_999) == {"tid": None}
        last = f"{ask(fs, 'moment', time_us=1_610_000_000_000_000)['tid']:#018x}"
        assert resolve(fs, f"@@{last}").obj_id == fs.root.obj_id
        assert {entry.name for entry in fs.readdir(resolve(fs, f"@@{last}"), 0)} == {
            entry.name for entry in fs.readdir(fs.root, 0)
        }


def test_a_pfs_has_a_history_of_its_own(images: Golden) -> None:
    with closing(images.mount("g5-pfs")) as root, closing(open_pfs(images, 1)) as master:
        through_link = ask(root, "versions", "/pfs/m1", name="big")
        assert through_link == ask(master, "versions", name="big")
        assert through_link["moments"]


def open_pfs(images: Golden, pfs: int) -> FileSystem:
    return images.mount("g5-pfs", MountOptions(read_only=True, pfs=pfs))
