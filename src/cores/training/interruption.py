"""Being told to stop while a run trains: Ctrl-C, and SIGTERM as clusters send it. Nothing of the run is lost."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from types import FrameType
from typing import ParamSpec, TypeVar

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LAUNCHED = "TORCHELASTIC_RUN_ID"  # torchrun passes a Ctrl-C on that its processes had already; it kills after 30 s
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

P = ParamSpec("P")
T = TypeVar("T")


class Cut(BaseException):
    """Raised where a signal comes, out of work that is done anew after a resume."""


class Interruption(TrainerCallback):
    """The first signal ends and saves the step at hand, or leaves an evaluation for later; a second stops at once.

    `stopped`: the signal that the run was stopped by, 0 for none; of several processes the same in all.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.stopped = 0
        self.cuts = False  # is this a moment that a signal may end at once?

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, signals are taken. They come to the main thread only: elsewhere nothing changes.

        SIGTERM and SIGHUP that this program was told to ignore, as by nohup, stay ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = [n for n in STOPS if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
        before = [signal.signal(number, self._take) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    def cut(self, work: Callable[P, T], at_once: bool = True) -> Callable[P, T | None]:
        """The same work, which a signal ends; it gives None then.

        `at_once`: wherever it is; else the work itself looks at `asked`, and raises Cut where it may end.
        """

        def run(*args: P.args, **kwargs: P.kwargs) -> T | None:
            try:
                try:
                    self.cuts = at_once
                    return None if self.asked else work(*args, **kwargs)
                finally:
                    self.cuts = False
            except Cut:
                return None

        return run

    def end(self) -> None:
        """Leave a run that was stopped. Raises KeyboardInterrupt after Ctrl-C, else SystemExit: 128 and the signal."""
        if self.stopped:
            _leave(self.stopped)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if LAUNCHED not in os.environ:
                _leave(number)
            return
        self.asked = number
        sys.stderr.write("\ninterrupted: this step is finished and saved first; once more stops at once\n")
        if self.cuts:
            raise Cut

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save and stop when any process was asked to, all of them after the same step."""
        if self._agree(args.device):
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False  # a resumed run begins with it

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save and stop after an evaluation, or in the place of one that was cut, as after a step."""
        if self._agree(args.device):
            control.should_training_stop = control.should_save = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Nothing is due at the end of an epoch that was cut short."""
        if self.stopped:  # the epoch has not ended, only our part of it
            control.should_save = control.should_evaluate = False

    def _agree(self, device: torch.device) -> bool:
        """Was any process told to stop? All of them say the same."""
        asked = self.asked
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            flag = torch.tensor(asked, device=device)
            distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
            asked = int(flag.item())
        self.stopped = asked
        return bool(asked)


def _leave(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def ignore_signals(begin: Callable[[int], None] | None, number: int) -> None:
    """How a worker that loads data begins: it leaves signals to the run's own process, which ends it.

    Clusters and terminals send them to all processes at once, and without its workers a step could not be finished.
    `begin`: what a worker does otherwise; `number`: of the worker.
    """
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    if begin is not None:
        begin(number)


@contextmanager
def workers_ended() -> Iterator[None]:
    """When the block ends, so do the processes that were begun in it.

    An error's traceback keeps a loader and its workers alive. At the program's end Python tells such processes to stop
    by SIGTERM and waits for them, for ever where they are deaf.
    """
    before = set(active_children())
    try:
        yield
    finally:
        left = set(active_children()) - before
        main = threading.current_thread() is threading.main_thread()
        told = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if left and main else None  # torch would raise
        for process in left:
            process.kill()
            process.join()
        if told is not None:
            signal.signal(signal.SIGCHLD, told)
