"""`python -m pgsession` is the command line `pgsession`."""

from __future__ import annotations

import sys

from pgsession.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
