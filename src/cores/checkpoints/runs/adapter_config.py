"""PEFT's `adapter_config.json`, held to what training here writes and to the adapter's tensors before PEFT sees it."""

import dataclasses
from pathlib import Path

from peft import LoraConfig

from cores.checkpoint_errors import checkpoint_errors
from cores.checkpoints.configs import read_json
from cores.checkpoints.tensors.lazy import Entry, open_shards
from cores.errors import CheckpointError

FILE, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OURS = ("r", "lora_alpha", "lora_dropout", "target_modules")
# where it came from and how it was made: says nothing about what it computes
ABOUT = {
    "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "inference_mode", "revision", "task_type",
    "megatron_core",
}  # fmt: skip


def read_adapter_config(folder: Path) -> LoraConfig:
    """The LoRA of a checkpoint.

    Raises CheckpointError that names every setting which is another than training here writes, or than the tensors.
    """
    file = folder / FILE
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder / WEIGHTS}: is missing; the checkpoint is not whole, take another")
    stored, tensors = read_json(file, "PEFT's settings"), open_shards(folder / WEIGHTS)
    wrong = []
    if stored.get("peft_type") != "LORA":
        wrong.append(f"peft_type: found {stored.get('peft_type')!r:.80}, expected LORA")
    rank = stored.get("r")
    shapes = {entry.shape[_side(name)] for name, entry in tensors.items() if _has_side(name, entry)}
    if isinstance(rank, bool) or not isinstance(rank, int) or shapes != {rank}:
        wrong.append(f"r: found {rank!r:.80}, the adapter's matrices are of rank {sorted(shapes)}")
    for name, least in (("lora_alpha", 0), ("lora_dropout", 0)):
        value = stored.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e9:
            wrong.append(f"{name}: found {value!r:.80}, expected a number from {least}")
    targets = stored.get("target_modules")
    if not isinstance(targets, str) and not (isinstance(targets, list) and all(isinstance(t, str) for t in targets)):
        wrong.append(f"target_modules: found {targets!r:.80}, expected names of layers")
    usual = dataclasses.asdict(LoraConfig())
    for name, value in stored.items():
        if name in OURS or name in ABOUT or name not in usual:
            continue
        if value not in (None, False, [], {}, usual[name]):
            wrong.append(f"{name}: found {value!r:.80}, which is not read here")
    if wrong:
        raise CheckpointError(f"{file}: is no adapter that can be read here: {'; '.join(wrong)}")
    with checkpoint_errors(file, "be used as LoRA's settings"):
        return LoraConfig(**{name: stored[name] for name in OURS}, bias="none")


def _side(name: str) -> int:
    """Which side of a matrix is the rank: A is (r, in), B is (out, r)."""
    return 0 if ".lora_A" in name else 1


def _has_side(name: str, entry: Entry) -> bool:
    return ".lora_" in name and len(entry.shape) == 2
