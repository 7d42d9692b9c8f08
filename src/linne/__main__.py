"""`python -m linne`, the same as `linne`."""

import sys

from linne.cli import main

if __name__ == "__main__":
    sys.exit(main())
