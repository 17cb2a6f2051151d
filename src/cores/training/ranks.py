"""Several processes that fail as one: under torchrun an error that all of them find is said once."""

import atexit
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from cores.errors import CoresError

PATIENCE = 20.0  # seconds; a launcher looks after its processes several times a second


def is_first() -> bool:
    """Is this the process that speaks for all?"""
    return _rank() == 0


@contextmanager
def together() -> Iterator[None]:
    """All processes leave the block together: when it fails in some, all of them end, and the first says why.

    Raises the block's error in the first process that has one. The others wait in silence for the launcher to end
    them: it ends all as soon as one is gone, so whoever left early would take the word from the first. After
    `PATIENCE` seconds nobody is coming, and they raise SystemExit (2); or their own error, where the processes have
    not joined and the first may have none.
    """
    error: CoresError | None = None
    try:
        yield
    except CoresError as found:
        error = found
    speaker = _first_of(error is not None)
    if speaker is None:
        return
    if speaker != _rank():
        _wait_for_the_end()
        if _joined() is not None:
            raise SystemExit(2)
    assert error is not None
    raise error


def _wait_for_the_end() -> None:
    """Give the launcher `PATIENCE` seconds to end this process, whatever was to be finished first until now."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(PATIENCE)


def leave() -> None:
    """Leave the other processes: a process group that is still there when Python ends can keep it from ending."""
    distributed = _joined()
    if distributed is not None:
        distributed.destroy_process_group()


def end_at_once(code: int) -> NoReturn:
    """End the process without taking the interpreter apart.

    Threads of torch's process groups live on while somebody holds a group, as DeepSpeed does in its modules. Such a
    thread takes Python's lock to let go of a tensor. Once the interpreter is being taken apart, asking for the lock
    ends the thread, inside of C++ that may not be left so, and the whole process aborts ("terminate called without an
    active exception"), after all the work is done. So everything that Python does before that point is done here, in
    its order: threads are waited for, what is registered for the end is run, output is flushed. The command line ends
    so; a program of one's own that trains on several processes should, too.
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


def _first_of(failed: bool) -> int | None:
    """The first process that failed. Before the processes have joined they all do the same: the very first, then."""
    distributed = _joined()
    if distributed is None:
        return 0 if failed else None
    found = [False] * distributed.get_world_size()
    distributed.all_gather_object(found, failed)
    return found.index(True) if any(found) else None


def _joined() -> Any:
    """torch.distributed, if this process is in a group. Nothing heavy is imported to find out."""
    distributed = sys.modules.get("torch.distributed")
    return (
        distributed
        if distributed is not None and distributed.is_available() and distributed.is_initialized()
        else None
    )


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
