"""``python -m crossexplain``."""

import sys

from crossexplain.cli import main

if __name__ == "__main__":
    sys.exit(main())
