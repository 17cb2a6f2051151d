"""Each rank does its own work with a model that stays cut: what one of them comes to, all of them gather.

Whoever comes to a layer says which one it is, and so does everybody else; a rank with nothing left says so. Then all
gather the layer that lies furthest on. Those that came to it run it; the others let go of it, and ask again. So a rank
that answers in fewer words, or has fewer pictures, runs nothing in vain, and waits before its next picture until the
others have answered.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from cores.errors import UserError
from cores.training.interruption import Cut

NOTHING = -1  # said in the place of a layer's number by a rank that has nothing left

T = TypeVar("T")
Held = Callable[[nn.Module], AbstractContextManager[None]]


class Lockstep:
    """Work of several ranks on one model that is cut over all of them.

    Args:
        units: the layers that are gathered one at a time, from the first that work comes to.
        held: inside of it a layer is whole on this rank; all ranks enter and leave it together.
        stopped: was this rank told to stop? Then the work of all of them ends with `Cut` before the next layer.
    """

    def __init__(self, units: Sequence[nn.Module], held: Held, stopped: Callable[[], bool] = lambda: False) -> None:
        self.units, self.held, self.stopped = list(units), held, stopped
        self.stop, self.failure = len(self.units), len(self.units) + 1  # said in the place of a layer, too
        self.ended = False
        # On the CPU, for GPUs need not be waited for
        self.group = distributed.new_group(backend="gloo")

    def run(self, work: Callable[[], T]) -> T:
        """What `work` gives on this rank; all ranks call this, each with its own work.

        Raises UserError when the work of another rank raised an error.
        """
        self.ended = False
        try:
            with torch.no_grad(), self._listening():
                found = work()
            while not self.ended and (wanted := self._agree(NOTHING)) != NOTHING:
                self._take_part(wanted)
        except BaseException:
            if not self.ended:
                self._agree(self.failure)
            raise
        return found

    def anybody(self, wants: bool) -> bool:
        """Does any rank want it? All ranks ask this together."""
        return self._agree(0 if wants else NOTHING) != NOTHING

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Inside, each layer is agreed upon before it runs."""
        with ExitStack() as stack:
            for number, unit in enumerate(self.units):
                self._listen(unit, number, stack)
            yield

    def _listen(self, unit: nn.Module, number: int, stack: ExitStack) -> None:
        whole = ExitStack()

        def before(*_: Any) -> None:
            self._come_to(number)
            whole.enter_context(self.held(unit))

        stack.callback(unit.register_forward_pre_hook(before, prepend=True).remove)
        stack.callback(unit.register_forward_hook(lambda *_: whole.close(), always_call=True).remove)

    def _come_to(self, number: int) -> None:
        """Return when it is this layer's turn."""
        while (wanted := self._agree(self.stop if self.stopped() else number)) != number:
            self._take_part(wanted)
            if self.ended:
                raise Cut

    def _take_part(self, wanted: int) -> None:
        if wanted == self.failure:
            self.ended = True
            raise UserError("another process of this run has ended: see what it said")
        if wanted == self.stop:
            self.ended = True
            return
        with self.held(self.units[wanted]):
            pass

    def _agree(self, said: int) -> int:
        """The largest number that a rank says."""
        number = torch.tensor(said)
        distributed.all_reduce(number, op=distributed.ReduceOp.MAX, group=self.group)
        self.ended |= said == self.failure
        return int(number)
