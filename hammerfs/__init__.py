"""HAMMER, DragonFly BSD's file system with history, read and written on Linux.

The sub-packages are floors: each imports only from itself and from floors below it, which
`tests/unit/test_tidy.py` enforces. From the ground up: `ondisk`, `device`, `store`, `btree`, `fs`,
`ops`, and side by side on top `vfs` and `cli`. `errors` is open to all of them.
"""

__version__ = "0.1.0"
