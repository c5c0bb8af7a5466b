"""`python -m wcodec`: the `wcodec` command."""

from __future__ import annotations

import sys

from . import _native


def main() -> int:
    return _native.main(["wcodec", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
