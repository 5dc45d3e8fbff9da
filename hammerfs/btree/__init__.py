"""Floor 4: the B-tree: nodes, cursors and searches as of any transaction."""
