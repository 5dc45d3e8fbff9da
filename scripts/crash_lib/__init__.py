"""What `scripts/crashtest` consists of; `main` is where to begin."""
