"""`python -m dunnart` is `dunnart`."""

from __future__ import annotations

import sys

from dunnart.tools.main import main

if __name__ == "__main__":
    sys.exit(main())
