"""Floor 3: buffers, the space map, transactions, and the UNDO log that makes them crash-proof."""
