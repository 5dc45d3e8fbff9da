"""Moving nodes and filling them: what reblocking and rebalancing do to the tree.

Nothing here changes a record, and no mirror TID grows.  Each step dirties one node's neighbourhood and leaves the tree
whole; whoever drives it may let others run in between, for every step finds its place anew by key.

Follows `hammer_reblock.c` (hammer_move_node) and `hammer_rebalance.c` (rebalance_node).  Other than there, nodes are
filled pair by pair instead of under one parent at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hammerfs.btree.cache import NodeCache, Path
from hammerfs.btree.node import (
    Key,
    Node,
    boundary_base,
    group_of,
    mirror_of,
    right_boundary,
    separator,
    with_base,
    with_child,
    with_mirror,
)
from hammerfs.btree.shape import shrink_root, unlink
from hammerfs.ondisk.address import Offset


def key_behind(path: Path, level: int) -> Key | None:
    """The key at which the range of the node at `path[level]` ends, None when it reaches the end of the tree."""
    for node, index in reversed(path[:level]):
        if index + 1 < len(node.keys):
            return node.keys[index + 1]
    return None


# --- moving -------------------------------------------------------------------------------------


@dataclass
class Moves:
    """What moving along one path did.

    examined, moved -- nodes looked at, and those that were moved
    behind -- the first key of the next leaf's range, None at the end of the tree
    """

    examined: int = 0
    moved: int = 0
    behind: Key | None = None


def move_nodes(cache: NodeCache, key: Key, wanted: Callable[[Offset], bool]) -> Moves:
    """Move the leaf for `key`, and the nodes whose first leaf it is, each if `wanted` says so of its place.

    So a walk over all leaves meets every node once.
    """
    path = cache.path_to(key)
    moves = Moves(behind=key_behind(path, len(path) - 1))
    for level in range(len(path) - 1, -1, -1):
        if level < len(path) - 1 and any(index for _, index in path[level:]):
            break
        node = path[level][0]
        moves.examined += 1
        if not node.fresh and wanted(node.offset):
            _move(cache, path, level, key)
            moves.moved += 1
    return moves


def _move(cache: NodeCache, path: Path, level: int, key: Key) -> None:
    """Give a node another place; its parent and its children hear of it."""
    node = path[level][0]
    children = [cache.child(node, index) for index in range(len(node.children))]
    if cache.mirror:
        for above, _ in path[:level]:
            cache.pin(above)
    place = cache.store.alloc_node(group_of(key, internal=bool(node.children)), node.offset)
    # From here on nothing is read or allocated, so nothing can fail half way.
    if level:
        parent, index = path[level - 1]
        elements = cache.change(parent)
        elements[index] = with_child(elements[index], place)
        parent.children[index] = place
    for child in children:
        cache.change(child)
        child.parent = place
    cache.replace(node, place)


# --- filling ------------------------------------------------------------------------------------


@dataclass
class Fill:
    """What one step of filling did.

    examined -- nodes met for the first time; changed -- nodes that got elements of their neighbour; removed -- nodes
    that gave all of theirs away
    next -- where to go on in this row of the tree, None at its end
    """

    examined: int = 0
    changed: int = 0
    removed: int = 0
    next: Key | None = None


def fill_step(cache: NodeCache, key: Key, row: int, saturation: int) -> Fill:
    """Fill the node for `key` in a row of the tree (0: leaves) from its right neighbour under the same parent.

    Only where fewer nodes could hold what the parent's children hold now, at `saturation` elements each.
    """
    path = cache.path_to(key)
    level = len(path) - 1 - row
    if level <= 0:
        return Fill()
    parent, index = path[level - 1]
    children = [cache.child(parent, place) for place in range(len(parent.children))]
    goal = _goal([len(child.keys) for child in children], saturation)
    step = Fill(examined=1, next=key_behind(path, level))
    if index + 1 == len(children) or len(children[index].keys) >= goal:
        return step
    left, right = children[index], children[index + 1]
    moved = [cache.child(right, place) for place in range(len(right.children))]
    if cache.mirror:
        for above, _ in path[:level]:
            cache.pin(above)
    count = min(goal - len(left.keys), len(right.keys))
    _shift(cache, left, right, moved[:count], count)
    step.changed += 1
    if right.keys:
        _part(cache, parent, index, left, right)
    else:
        unlink(cache, parent, index + 1, right.mirror_tid)
        cache.discard(right)
        shrink_root(cache)
        step.removed += 1
        step.examined, step.next = 0, key  # the next neighbour may fit, too
    return step


def _goal(counts: list[int], saturation: int) -> int:
    """Elements that each child but the last one should have; 0 when there is nothing to gain."""
    total = sum(counts)
    enough = max(1, -(-total // saturation))
    return -(-total // enough) if enough < len(counts) else 0


def _shift(cache: NodeCache, left: Node, right: Node, moved: list[Node], count: int) -> None:
    """Move `count` elements from the front of `right` to the end of `left`; `moved` are the children among them."""
    kept, given = cache.change(left), cache.change(right)
    left.keys += right.keys[:count]
    kept += given[:count]
    if left.children:
        left.children += right.children[:count]
        if count == len(right.keys):
            left.right_key, left.right_element = right.right_key, right.right_element
        else:
            left.right_key, left.right_element = right.keys[count], right_boundary(given[count])
        for child in moved:
            cache.change(child)
            child.parent = left.offset
    del right.keys[:count], given[:count], right.children[:count]
    left.mirror_tid = max(left.mirror_tid, right.mirror_tid)
    left.last_insert = right.last_insert = -1


def _part(cache: NodeCache, parent: Node, index: int, left: Node, right: Node) -> None:
    """Move the boundary between two neighbours to where they part now."""
    elements = cache.change(parent)
    boundary = right.keys[0] if right.children else separator(left.keys[-1], right.keys[0])
    base = right.element(0) if right.children else boundary_base(boundary)
    parent.keys[index + 1] = boundary
    elements[index + 1] = with_base(elements[index + 1], base)
    # What is known of either holds for both now; the next sync carries up what is not known yet.
    known = max(mirror_of(elements[index]), mirror_of(elements[index + 1]))
    elements[index] = with_mirror(elements[index], known)
