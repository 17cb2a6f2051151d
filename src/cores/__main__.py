"""The command line as a program: `cores`, and `python -m cores` for torchrun and accelerate."""

import os
import sys
import traceback

from cores.cli import main
from cores.training.ranks import end_at_once

SIZE = "WORLD_SIZE"  # every launcher says it to the processes that it starts


def program() -> int:
    """Run the command line; gives the exit code. One of several processes ends in here, by `end_at_once`."""
    if SIZE not in os.environ:
        return main()
    try:
        code = main()
    except SystemExit as exit:
        if exit.code is not None and not isinstance(exit.code, int):
            sys.stderr.write(f"{exit.code}\n")
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    end_at_once(code)


if __name__ == "__main__":
    sys.exit(program())
