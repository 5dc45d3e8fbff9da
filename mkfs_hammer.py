#!/usr/bin/env python3
"""Make a HAMMER file system: newfs_hammer(8), run from a source tree."""

import sys

from hammerfs.cli.mkfs import main

if __name__ == "__main__":
    sys.exit(main())
