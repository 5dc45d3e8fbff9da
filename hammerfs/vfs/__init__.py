"""Floor 7: the kernel's side: the FUSE adapter and the life of a mount; only user of pyfuse3."""
