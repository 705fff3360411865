"""What a pixel of a mask costs as scenes grow, from 1024 x 1024 to a whole tile.

    python -m benchmarks.scaling [--runs 3] [--folder DIR] [--json FILE]

It is ``benchmarks.tile`` with these sides, and takes its other arguments too; see there.
"""

from __future__ import annotations

import sys

from benchmarks import tile

SIDES = ("1024", "2048", "4096", "10980")

if __name__ == "__main__":
    tile.main(["--sides", *SIDES, *sys.argv[1:]])
