"""Compiled modules in the place of the sources that they were made from, where there are any that fit.

`scripts/compile` has mypyc make extension modules of the modules in `GROUP`, and puts them into a folder of the virtual
environment that is called after the fingerprint of the sources.  Programs ask for them by `use`; who imports hammerfs
as a library gets the sources, for tests replace parts of them, which compiled code would not see.

What must hold:

1. Never a binary of other sources.  Compiled modules know the insides of each other, and values of the constants they
   import.  So the fingerprint is that of everything on their own floors and below, whatever part of it was compiled.
2. All of the group or nothing.  A compiled module reaches into another one without looking what was imported under that
   name.  So a folder gets its name when it is complete, and a module that is gone from it is an error, not a reason to
   take its source.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

PURE: Final = "HAMMERFS_PURE"
"""A program whose environment sets this to anything but nothing runs the sources."""
FLOORS: Final = ("ondisk", "device", "store", "btree", "fs")
"""The packages whose sources make the fingerprint, with `errors` and this module."""
GROUP: Final = frozenset(
    f"hammerfs.{package}.{module}"
    for package, modules in {
        "ondisk": "address constants crc creation direntry element fifo freemap inode node",
        "store": "blockmap buffers datablocks fiforeader freemap nodestore recovery regions rootvolume undo volumes",
        "btree": "cache changed node nodestore reshape shape tree",
        "fs": "attributes barrier births cycle directory filedata flusher flushgroup fsync groupflush inodecache "
        "knownnames lookup metadata mount namespace pfs records redo redolog space sync_inode writebehind xattr",
    }.items()
    for module in modules.split()
)
"""What is compiled: what runs for each request and each flush.  Left out although it runs as often:
`ondisk.fields` with what is built of it, descriptors, which mypyc does not know; `fs.inode`, since nothing can refer
weakly to objects of a compiled class; `fs.context`, whose fields have types that only a type checker imports; `device`,
which is system calls.
"""
SHARED: Final = "hammerfs_group"
"""What mypyc names the library after that holds the code of all of them."""
_LIBRARY: Final = f"{SHARED}__mypyc"
_PACKAGE: Final = Path(__file__).parent


def fingerprint(package: Path = _PACKAGE) -> str:
    """A name for the sources below a folder `hammerfs`, as an interpreter of this kind runs them."""
    files = [package / "compiled.py", package / "errors.py"]
    for floor in FLOORS:
        files += sorted((package / floor).glob("*.py"))
    digest = hashlib.sha256(EXTENSION_SUFFIXES[0].encode())
    for file in files:
        content = file.read_bytes()
        digest.update(b"%b %d\n" % (os.fsencode(file.relative_to(package)), len(content)))
        digest.update(content)
    return digest.hexdigest()[:32]


def store() -> Path:
    """Where this interpreter's environment keeps folders of compiled modules."""
    return Path(sys.prefix, "hammerfs-compiled")


@cache
def folder() -> Path | None:
    """The compiled modules that fit the sources, None when there are none or nobody wants them."""
    if os.environ.get(PURE) or not store().is_dir():
        return None
    found = store() / fingerprint()
    return found if found.is_dir() else None


class _Finder:
    """Finds modules of the group in the folder, and leaves all others to the rest of `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in GROUP and name != _LIBRARY:
            return None
        place = folder()
        if place is None:
            return None
        spec = PathFinder.find_spec(name, [str(place.joinpath(*name.split(".")[:-1]))])
        if spec is None:
            raise ImportError(f"{place} holds no {name} any more")
        return spec


def use() -> None:
    """From now on, import compiled modules if there are any that fit; to be called before one of them is imported.

    Where that has happened already, the sources stay in use.
    """
    if GROUP.isdisjoint(sys.modules) and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def in_use() -> bool:
    """Whether this process runs compiled modules, or will as soon as it needs one."""
    return _Finder in sys.meta_path and folder() is not None
