"""How the tree grows and shrinks: splits, wider boundaries, removal of empty nodes, mirror TIDs carried upwards.

These are the rare operations, so they go down from the root by key as often as they like and do one step at a time;
after each step the tree is whole.  Space is allocated before a step's first change, so NoSpaceError leaves the tree
whole, too.

Follows `hammer_btree.c` (btree_split_leaf, btree_split_internal, the boundary corrections in btree_search,
btree_remove, hammer_btree_mirror_propagate).  Other than there, a node split by insertions in ascending order keeps
what it has, so that appending fills nodes; and a root with a single child gives way to it.
"""

from __future__ import annotations

from bisect import bisect_left

from hammerfs.btree.cache import NodeCache, Path
from hammerfs.btree.node import (
    ROOT_LEFT,
    ROOT_RIGHT,
    Key,
    Node,
    boundary_base,
    child_element,
    group_of,
    mirror_of,
    right_boundary,
    separator,
    with_base,
    with_mirror,
)
from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import BTREE_INTERNAL
from hammerfs.ondisk.element import ROOT_LEFT_BOUNDARY, ROOT_RIGHT_BOUNDARY

# --- growing ------------------------------------------------------------------------------------


def make_room(cache: NodeCache, key: Key) -> None:
    """Split nodes until the leaf for `key` can take one more element.

    Before a node is split its parent has room for one more child, so a run of full nodes is split from the top.
    """
    path = cache.change_leaf(key)
    while path[-1][0].full:
        level = len(path) - 1
        while level and path[level - 1][0].full:
            level -= 1
        _split(cache, path, level, key)
        path = cache.change_leaf(key)


def _split(cache: NodeCache, path: Path, level: int, key: Key) -> None:
    """Move the upper elements of a full node to a new right neighbour."""
    node, index = path[level]
    position = index + 1 if node.children else bisect_left(node.keys, key)
    at = _split_point(node, position)
    # Read before anything changes, since any of them may turn out to be damaged.
    moved = [cache.child(node, child) for child in range(at, len(node.children))]
    first = node.keys[at] if at < len(node.keys) else key
    right = cache.new_node(node.parent, group_of(first, internal=bool(node.children)), node.offset)
    try:
        parent, place = path[level - 1] if level else (_new_root(cache, node), 0)
    except BaseException:
        cache.discard(right)
        raise
    right.parent = parent.offset
    boundary = _divide(cache, node, right, at, position, key)
    for child in moved:
        cache.change(child)
        child.parent = right.offset
    _link(cache, parent, place + 1, boundary, right)
    cache.splits += 1


def _split_point(node: Node, position: int) -> int:
    """How many elements stay when one is about to be inserted at `position`.

    All (but one, where a node must not be empty) when it goes to the end, so that ascending insertion leaves full nodes
    behind; those before it when it continues a run of ascending insertions in the middle; else half.
    """
    count = len(node.keys)
    if position == count:
        return count - 1 if node.children else count
    if position == node.last_insert + 1 and position > count // 2:
        return position
    return count // 2


def _divide(cache: NodeCache, node: Node, right: Node, at: int, position: int, key: Key) -> Key:
    """Distribute the elements of `node`; the boundary between the two.

    Where the new key will stand at the division, the boundary sends it to the side that has the room.
    """
    elements = cache.change(node)
    if node.children:
        boundary = node.keys[at]
        right.children, node.children = node.children[at:], node.children[:at]
        right.right_key, right.right_element = node.right_key, node.right_element
        node.right_key, node.right_element = boundary, right_boundary(elements[at])
    elif at == len(node.keys):
        boundary = separator(node.keys[-1], key)
    elif at == position:
        boundary = separator(key, node.keys[at])
    else:
        boundary = separator(node.keys[at - 1], node.keys[at])
    right.keys, right.elements = node.keys[at:], elements[at:]
    del node.keys[at:], elements[at:]
    right.mirror_tid = node.mirror_tid
    return boundary


def _new_root(cache: NodeCache, old: Node) -> Node:
    """Put an internal node of one child above the root."""
    root = cache.new_node(0, group_of(ROOT_LEFT, internal=True), old.offset)
    root.mirror_tid = old.mirror_tid
    root.keys, root.right_key = [ROOT_LEFT], ROOT_RIGHT
    root.elements = [child_element(ROOT_LEFT_BOUNDARY, old.kind, old.mirror_tid, old.offset)]
    root.right_element = right_boundary(ROOT_RIGHT_BOUNDARY)
    root.children = [old.offset]
    cache.change(old)
    old.parent = root.offset
    cache.set_root(root)
    return root


def _link(cache: NodeCache, parent: Node, place: int, boundary: Key, child: Node) -> None:
    elements = cache.change(parent)
    # What the parent knows of the left half holds for the right one; the next sync brings it up to date.
    known = mirror_of(elements[place - 1])
    parent.keys.insert(place, boundary)
    elements.insert(place, child_element(boundary_base(boundary), child.kind, known, child.offset))
    parent.children.insert(place, child.offset)
    parent.last_insert = place


def widen(cache: NodeCache, key: Key) -> None:
    """Stretch the boundaries of nodes above the leaf for `key` that are narrower than their range, to take it in."""
    low, low_key = ROOT_LEFT_BOUNDARY, ROOT_LEFT
    high, high_key = ROOT_RIGHT_BOUNDARY, ROOT_RIGHT
    assert low_key <= key < high_key, "a key beyond the boundaries of all trees"
    for node, index in cache.change_leaf(key)[:-1]:
        if key < node.keys[0]:
            elements = cache.change(node)
            node.keys[0], elements[0] = low_key, with_base(elements[0], low)
        if key >= node.right_key:
            cache.change(node)
            node.right_key, node.right_element = high_key, right_boundary(high)
        low, low_key = node.element(index), node.keys[index]
        if index + 1 < len(node.keys):
            high, high_key = node.element(index + 1), node.keys[index + 1]
        else:
            high, high_key = node.right_element, node.right_key


# --- shrinking ----------------------------------------------------------------------------------


def remove_empty_leaf(cache: NodeCache, key: Key) -> None:
    """Take the empty leaf for `key` out of the tree, with all ancestors that would be left without a child.

    An empty root stays, as a leaf.
    """
    path = cache.change_leaf(key)
    doomed = [path.pop()[0]]
    while path and len(path[-1][0].keys) == 1:
        doomed.append(path.pop()[0])
    if not path:
        root = doomed.pop()
        cache.change(root)
        root.become_leaf()
    else:
        parent, index = path[-1]
        tid = max(node.mirror_tid for node in doomed) if cache.mirror else 0
        unlink(cache, parent, index, tid)
    for node in doomed:
        cache.discard(node)
    shrink_root(cache)


def unlink(cache: NodeCache, parent: Node, index: int, tid: Tid) -> None:
    """Remove a child from a node that has others; a neighbour inherits its range and its mirror_tid."""
    elements = cache.change(parent)
    tid = max(tid, mirror_of(elements[index]))
    heir = index - 1 if index else 1
    if cache.mirror:
        _tell_edge(cache, parent, heir, tid, last=heir < index)
    if mirror_of(elements[heir]) < tid:
        elements[heir] = with_mirror(elements[heir], tid)
    if index == 0:
        elements[heir] = with_base(elements[heir], elements[0])
        parent.keys[heir] = parent.keys[0]
    del parent.keys[index], elements[index], parent.children[index]
    parent.mirror_tid = max(parent.mirror_tid, tid)


def _tell_edge(cache: NodeCache, parent: Node, heir: int, tid: Tid, *, last: bool) -> None:
    """Carry a TID down the side of an heir on which its range grows, for scans for changes to come that far.

    The original tells its topmost node alone, and a mirror never learns what was removed with a whole subtree.
    """
    edge = []
    try:
        while parent.bounds_of(heir).kind == BTREE_INTERNAL:
            parent = cache.child(parent, heir)
            heir = len(parent.children) - 1 if last else 0
            edge.append((parent, heir))
    except CorruptionError:
        return  # whoever needs that node gets to hear of it
    for node, index in edge:
        elements = cache.change(node)
        if mirror_of(elements[index]) < tid:
            elements[index] = with_mirror(elements[index], tid)
        node.mirror_tid = max(node.mirror_tid, tid)


def shrink_root(cache: NodeCache) -> None:
    """Let the only child of the root take its place, as long as there is only one."""
    root = cache.load_root()
    while len(root.children) == 1:
        try:
            child = cache.child(root, 0)
        except CorruptionError:
            return  # whoever needs that child gets to hear of it; a tree one level too high is still sound
        elements = cache.change(child)
        child.parent = 0
        child.mirror_tid = max(child.mirror_tid, root.mirror_tid)
        if child.children:
            child.keys[0], elements[0] = root.keys[0], with_base(elements[0], root.element(0))
            child.right_key, child.right_element = root.right_key, root.right_element
        cache.set_root(child)
        cache.discard(root)
        root = child


# --- mirror TIDs --------------------------------------------------------------------------------


def propagate_mirror_tids(cache: NodeCache) -> None:
    """Carry the mirror_tid of every changed node to its parent's element and on, to the root."""
    pending = [node for node in cache.dirty.values() if node.changed]
    while pending:
        node = pending.pop()
        if node.offset == cache.root_offset:
            continue
        parent = cache.dirty[node.parent]
        index = parent.children.index(node.offset)
        if mirror_of(parent.element(index)) >= node.mirror_tid:
            continue
        elements = cache.change(parent)
        elements[index] = with_mirror(elements[index], node.mirror_tid)
        if parent.mirror_tid < node.mirror_tid:
            parent.mirror_tid = node.mirror_tid
            pending.append(parent)
