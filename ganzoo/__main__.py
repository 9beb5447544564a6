"""``python -m ganzoo`` is the command ``ganzoo``."""

import sys

from ganzoo.cli import main

if __name__ == "__main__":
    sys.exit(main())
