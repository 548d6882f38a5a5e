"""`python -m fnnets`."""

import sys

from fnnets.command_line import main

sys.exit(main())
