"""`python -m metatower`."""

import sys

from metatower.cli import main

if __name__ == "__main__":
    sys.exit(main())
