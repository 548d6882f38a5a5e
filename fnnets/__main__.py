"""`python -m fnnets`."""

import sys

from fnnets.command_line import main

if __name__ == "__main__":
    sys.exit(main())
