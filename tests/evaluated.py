"""`cores eval` in a process of its own that kills itself: `evaluated.py KILL ARGUMENTS...`.

KILL: after how many batches the process is killed; half a line of the next batch is left behind then.
"""

import os
import signal
import sys
from collections.abc import Sequence

from cores.cli import main
from cores.evaluation.evaluator import Judged
from cores.evaluation.journal import Journal


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


if __name__ == "__main__":
    killed_after(int(sys.argv[1]))
    sys.exit(main(["eval", *sys.argv[2:]]))
