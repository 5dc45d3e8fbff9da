"""What `scripts/compile` is made of."""
