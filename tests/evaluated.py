"""`cores eval` in a process of its own that kills itself: `evaluated.py KILL ARGUMENTS...`.

KILL: after how many batches the process is killed; half a line of the next batch is left behind then. `late`: none is
killed, but all processes save the first are slow to read what is there.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cores.cli import main
from cores.evaluation import journal as journals
from cores.evaluation.evaluator import Judged
from cores.evaluation.journal import Journal, Place


def killed_after(batches: int) -> None:
    """From now on this process dies, by a signal that nothing can catch, while it writes the batch after these."""
    write, written = Journal.write, []

    def write_or_die(journal: Journal, judged: Sequence[Judged]) -> None:
        if len(written) == batches:
            journal.answers.write(b'{"source": "half a li')
            journal.batches.write(b'{"source": "scenes|test", "samples": [{"num')
            journal.answers.flush()
            journal.batches.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write(journal, judged)
        written.append(1)

    Journal.write = write_or_die  # type: ignore[method-assign]


def late() -> None:
    """From now on the others have asked something by the time that this process sees what was asked before."""
    found_in = journals.found_in

    def found_late(home: Path) -> dict[tuple[str, int], Place]:
        time.sleep(3 * (os.environ["RANK"] != "0"))
        return found_in(home)

    journals.found_in = found_late


if __name__ == "__main__":
    late() if sys.argv[1] == "late" else killed_after(int(sys.argv[1]))
    sys.exit(main(["eval", *sys.argv[2:]]))
