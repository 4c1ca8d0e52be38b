"""`python -m fireworks.extensions.hyperspace` is the command `hyperspace`, where scripts are not on the PATH."""

import sys

from fireworks.extensions.hyperspace.cli import main

if __name__ == "__main__":
    sys.exit(main())
