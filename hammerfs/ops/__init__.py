"""Floor 6: work on whole file systems, mounted or not: check, prune, reblock, mirror, recover."""
