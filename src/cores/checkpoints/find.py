"""Which folder a name means: a model's, a run's best checkpoint, a hub id's snapshot, or what comes with cores."""

from importlib import resources
from pathlib import Path

from cores.checkpoints.published.converted import as_ours
from cores.checkpoints.runs.best import BEST, best_step, step_of
from cores.checkpoints.runs.origin import BASE
from cores.errors import CheckpointError
from cores.hub import fetch, is_hub_name

SHIPPED = Path(str(resources.files("cores"))) / "shipped"


def shipped(name: str) -> Path:
    """A folder of weights that comes with cores: `cores-tiny`, `bases-tiny`. Raises CheckpointError without it."""
    folder = SHIPPED / name
    if not folder.is_dir():
        raise CheckpointError(f"{name}: does not come with this install ({folder} is not there): name a folder")
    return folder


def find(path: str | Path | None) -> Path:
    """The folder that holds a model or a checkpoint. None and `shipped`: the model that comes with cores.

    Of a run folder: `best`, or else the last checkpoint. A name such as `owner/model` or `owner/model@v1` that is no
    folder here is taken from the hub (or its cache, with HF_HUB_OFFLINE). Of a published CoReS or LISA: what it was
    converted into (`as_ours`). Raises CheckpointError when there is none, or one that cannot be converted.
    """
    if path is None or str(path) == "shipped":
        return shipped("cores-tiny")
    folder = Path(path)
    if folder.is_dir():
        return best_of(folder) if is_run(folder) else as_ours(folder)
    if folder.exists():
        raise CheckpointError(f"{path}: is a file, expected the folder of a model or of a run")
    if is_hub_name(path):
        return as_ours(fetch(path))
    raise CheckpointError(f"{path}: there is no such folder; give a model folder, a run folder or a hub id")


def is_run(folder: Path) -> bool:
    """Is this a run's folder, which holds checkpoints and is none itself?"""
    return (folder / "recipe.yaml").exists() and not (folder / BASE).exists()


def is_checkpoint(folder: Path) -> bool:
    """Is this one of a run's checkpoints, which needs its base?"""
    return (folder / BASE).exists()


def checkpoints_of(run: Path) -> list[Path]:
    """A run's `checkpoint-N`, by N."""
    found = [f for f in run.glob("checkpoint-*") if f.name.removeprefix("checkpoint-").isdigit() and is_checkpoint(f)]
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


def best_of(run: Path) -> Path:
    """A run's best checkpoint, or else its last. Raises CheckpointError when it has none yet."""
    found, best = checkpoints_of(run), run / BEST
    step = best_step(found[-1]) if found else None
    if is_checkpoint(best) and step in (None, step_of(best)):
        return best
    named = run / f"checkpoint-{step}"  # a run that was killed before it gave `best` to it
    if named in found:
        return named
    if is_checkpoint(best):
        return best
    if not found:
        raise CheckpointError(
            f"{run}: the run has no checkpoint yet; go on with `cores train ... --out {run} --resume`"
        )
    return found[-1]
