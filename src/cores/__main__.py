"""The command line as a program: `cores`, and `python -m cores` for torchrun and accelerate."""

import atexit
import os
import sys
import threading
import traceback
from typing import NoReturn

from cores.cli import main

LAUNCHED = "WORLD_SIZE"  # every launcher says it to the processes that it starts


def program() -> int:
    """Run the command line; gives the exit code. One of several processes ends in here, by `end_at_once`."""
    if LAUNCHED not in os.environ:
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


def end_at_once(code: int) -> NoReturn:
    """End the process without taking the interpreter apart.

    Threads of torch's process groups live on while somebody holds a group, as DeepSpeed does in its modules. Such a
    thread takes Python's lock to let go of a tensor. Once the interpreter is being taken apart, asking for the lock
    ends the thread, inside of C++ that may not be left so, and the whole process aborts ("terminate called without an
    active exception"), after all the work is done. So everything that Python does before that point is done here, in
    its order: threads are waited for, what is registered for the end is run, output is flushed.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # nobody reads it any more
                stream.flush()
    except BaseException:
        traceback.print_exc()
        code = code or 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(program())
