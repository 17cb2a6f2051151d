"""The folder of a run: one process holds it, and a start that fails leaves nothing of it."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cores.errors import UserError

RECIPE = "recipe.yaml"
LOG = "log.jsonl"

HELD: dict[Path, int] = {}  # folders that this process holds, and how


@contextmanager
def taken(run: Path, *, resume: bool = False, replace: bool = False) -> Iterator[None]:
    """Hold a run's folder inside the block; where it is held by this process already, nothing happens.

    A new folder is made at once; it is removed again when the block ends with an error before anything was logged or
    saved in it. The hold goes away with the process, however that ends. `replace`: what the folder holds may be
    removed later, by `clear`.

    Raises UserError when another process holds the folder, when there is no run to resume, and when something is
    there that may not be replaced.
    """
    run = run.resolve()
    if run in HELD:
        yield
        return
    if resume and not (run / RECIPE).is_file():
        raise UserError(f"--out {run}: there is no run to resume: it holds no {RECIPE}")
    made = [folder for folder in (run, *run.parents) if not folder.exists()]  # from the innermost outwards
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out {run}: is a file, expected a folder: take another") from None
    HELD[run] = _hold(run)
    try:
        if not resume and any(run.iterdir()):
            if not replace:
                raise UserError(
                    f"--out {run}: exists already: take another, --resume to go on, or --overwrite to begin anew"
                )
            if not (run / RECIPE).is_file():
                raise UserError(
                    f"--out {run}: is not the folder of a run (no {RECIPE}), so it is not replaced: take another"
                )
        yield
    except BaseException as error:
        if made and not _worth_keeping(run, error):
            shutil.rmtree(run, ignore_errors=True)
            for folder in made[1:]:
                with suppress(OSError):  # somebody else's by now
                    folder.rmdir()
        raise
    finally:
        os.close(HELD.pop(run))


def clear(run: Path) -> None:
    """Remove what a held folder holds, and keep the folder."""
    for entry in run.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _hold(run: Path) -> int:
    """An open folder that nobody else has under a lock. Raises UserError when somebody has."""
    number = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(number)
            raise UserError(
                f"--out {run}: another process trains into it: wait for its end, or take another"
            ) from None
        # else a file system without locks
    return number


def _worth_keeping(run: Path, error: BaseException) -> bool:
    """Did the run get anywhere? One that was interrupted has its recipe, with which it can begin again."""
    if any(run.glob("checkpoint-*")) or (run / LOG).exists():
        return True
    return isinstance(error, KeyboardInterrupt | SystemExit) and (run / RECIPE).exists()


def _let_go() -> None:
    """Workers inherit open files; they may outlive a killed process for a while and must not hold its folder."""
    for number in HELD.values():
        os.close(number)
    HELD.clear()


os.register_at_fork(after_in_child=_let_go)
