"""A checkpoint of ours whose learned tensors lie in DeepSpeed's shards alone, as ZeRO-3 leaves it, made whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file

from cores.checkpoints.find import find, is_checkpoint
from cores.checkpoints.runs.learned import ADAPTER, PEFT_PREFIX, TRAINED
from cores.checkpoints.tensors.deepspeed_shards import Consolidated, is_sharded
from cores.checkpoints.tensors.lazy import headers


@contextmanager
def whole_checkpoint(run: str | Path) -> Iterator[Path]:
    """A run's checkpoint: itself, or a copy beside it that is put together from shards and goes away afterwards.

    Raises CheckpointError when a process's shard is missing.
    """
    checkpoint = find(run)
    if not is_checkpoint(checkpoint) or not is_sharded(checkpoint) or is_whole(checkpoint):
        yield checkpoint
        return
    copy = checkpoint.with_name(f".{checkpoint.name}.whole")  # beside it, where the run's recipe is
    try:
        copy.mkdir()
        for file in checkpoint.iterdir():
            if file.is_file() and file.name not in (TRAINED, ADAPTER):
                shutil.copy2(file, copy)
        write_learned_tensors(Consolidated(checkpoint), copy)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def is_whole(checkpoint: Path) -> bool:
    """Are the learned tensors there, and not just places for them? Raises CheckpointError when they cannot be read."""
    file = checkpoint / TRAINED
    return file.is_file() and all(0 not in shape for shape, _ in headers(file).values())


def write_learned_tensors(found: Consolidated, folder: Path) -> None:
    """Shards as the two files of a checkpoint: PEFT's own for LoRA, and everything else that trained."""
    adapter, trained = {}, {}
    for name in sorted(found.trained):
        if ".lora_" in name:
            adapter[PEFT_PREFIX + name.replace(".default.weight", ".weight")] = found.tensor(name).contiguous()
        else:
            trained[name] = found.tensor(name).contiguous()
    if adapter:
        save_file(adapter, folder / ADAPTER)
    save_file(trained, folder / TRAINED)
