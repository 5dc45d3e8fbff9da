"""Floor 2: where the bytes are: devices, files and volumes, knowing nothing of what they hold."""
