"""Names in directories: what memory adds and takes away, how the cache forgets, and what renames bind together."""

from __future__ import annotations

from small_filesystem import flush_closure, fresh, make, mount, names, read, walk


def test_the_directory_of_a_new_file_stays_the_one_that_the_cache_knows() -> None:
    """A clean directory may be the cache's oldest inode just when an entry is made in it."""
    fs = mount(fresh())
    make(fs, fs.root, b"d")
    assert fs.flusher is not None
    fs.ctx.inodes._limit = 1
    made = []
    for number in range(8):
        fs.flusher.flush_now()
        made.append(b"%d" % number)
        make(fs, walk(fs, b"d"), made[-1], b"content")
        assert names(fs, walk(fs, b"d")) == made
    fs.flusher.flush_now()
    assert [read(fs, b"d", name) for name in made] == [b"content"] * len(made)


def test_a_directory_that_was_flushed_before_its_entries_keeps_them() -> None:
    """fsync of one file takes its new directory along, which is then clean while other entries of it are pending."""
    fs = mount(fresh())
    directory = make(fs, fs.root, b"d")
    make(fs, directory, b"a", b"1")
    make(fs, directory, b"b", b"2")
    flush_closure(fs, walk(fs, b"d", b"a"))
    del directory
    fs.ctx.inodes._limit = 1
    for number in range(4):
        make(fs, fs.root, b"%d" % number)
    assert names(fs, walk(fs, b"d")) == [b"a", b"b"]
