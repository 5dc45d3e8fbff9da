"""Floor 1: the format itself: structures, checksums, addresses and hashes, bytes in, values out."""
