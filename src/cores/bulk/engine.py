"""Workers on Ray: an actor a device, of one machine or a cluster, each of which takes the next part when it is free.

Ray starts an actor anew that died, and gives its part to whoever is free; `plan.py` makes that harmless. Ray Data has
checkpoints of its own (`CheckpointConfig`, still beta in 2.60), which are not used: each of its filters holds the ids
of all rows done in memory; files are written straight to their place, in any order and under names of a run, so that
who reads meanwhile may read half of one, and what a killed run left half stays until the next starts.
"""

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from cores.bulk.plan import Part, Settings
from cores.bulk.worker import Done, Loading, Worker
from cores.errors import UserError

SECONDS = 10.0  # until a cluster's address counts as wrong
OBJECT_STORE = 128 << 20  # bytes: through it go numbers of parts, no pictures and no masks
BLOCKS = 4096  # tasks that Ray gets at most

Columns = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Share:
    """How many workers there are, and what each of them has."""

    workers: int
    gpus: float
    cpus: int


class Actor:
    """A worker as Ray Data calls it: with some parts, as columns."""

    def __init__(self, *about: Any) -> None:
        self.worker = Worker(*about)

    def __call__(self, parts: Columns) -> Columns:
        """Answer them. Gives the columns of `Done`."""
        rows = zip(parts["number"], parts["start"], parts["length"], strict=True)
        done = [self.worker.do(*map(int, row)) for row in rows]
        return {name: np.array(column) for name, column in zip(Done._fields, zip(*done, strict=True), strict=True)}


@contextmanager
def started(address: str | None) -> Iterator[None]:
    """Inside, Ray runs: on this machine, started here and ended with the block; or a cluster's, by its `address`.

    Raises UserError when it is not installed, or there is none at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of what Ray Data does
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError as error:
        raise UserError(f"--engine ray needs Ray Data ({error}): pip install 'cores[ray]'") from None
    own: dict[str, Any] = {} if address else {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
    stop = signal.getsignal(signal.SIGTERM)
    _knock(address)
    try:
        with _silent():
            ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, RayError) as error:
        what = f"--address {address}: Ray does not answer" if address else "Ray cannot be started"
        raise UserError(f"{what}: {_last_line(error)}") from error
    signal.signal(signal.SIGTERM, stop)  # Ray sets one of its own
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _silent() -> Iterator[None]:
    """Inside, nothing comes out on stderr: Ray's core says there which log level it was given."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _knock(address: str | None) -> None:
    """Raise UserError when nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}: no Ray is there ({error}); `ray start --head` starts it") from None


def share(workers: int | None, device: str | None) -> Share:
    """One worker a GPU, or, where there is none or `device` is cpu, one a machine; or as many as are asked for.

    Raises UserError when there are not as many processors.
    """
    import ray

    nodes = [int(node["Resources"]["CPU"]) for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"]]
    gpus = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    count = workers or gpus or len(nodes)
    if count > sum(nodes):
        raise UserError(f"--workers {count}: there are {sum(nodes)} processors, a worker takes one at least")
    return Share(count, min(1, gpus / count), max(1, min(nodes) // ceil(count / len(nodes))))


def run(parts: Sequence[Part], share: Share, home: Path, settings: Settings, loading: Loading) -> Iterator[Done]:
    """Have all parts answered; gives each when it is done, in any order. Ray must be `started`.

    Raises UserError when the workers cannot be started, or cannot write.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    columns = [{"number": part.number, "start": part.start, "length": part.length} for part in parts]
    done = ray.data.from_items(columns, override_num_blocks=min(len(parts), BLOCKS)).map_batches(
        Actor,
        fn_constructor_args=(home, settings, replace(loading, threads=share.cpus), uuid4().hex),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(share.workers, len(parts)), max_tasks_in_flight_per_actor=2),
        num_cpus=share.cpus,
        num_gpus=share.gpus,
    )
    try:
        for row in done.iter_rows():
            yield Done(**row)
    except RayError as error:
        raise UserError(f"the workers stopped: {_last_line(error)}. The same command goes on from here") from error


def _last_line(error: BaseException) -> str:
    """What went wrong, of an error whose text may be a worker's whole traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().removeprefix(f"{UserError.__module__}.")
