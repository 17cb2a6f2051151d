"""`python -m cores`: the command line, for torchrun and for where no script is installed."""

import sys

from cores.cli import main

sys.exit(main())
