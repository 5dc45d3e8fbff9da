"""Floor 5: inodes, directories, file data and history, and the flusher that makes them durable."""
