"""A model of middle size with random weights, on which `train_step.py` and `ask.py` measure: large enough that the
shares of its parts are those of real ones, small enough for two cores. And runs in fresh processes, old against new.

Legend: positions = of one conversation behind its picture, as if it were alone in its row.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from cores.modeling import CoresConfig, CoresModel

PAD, BOS, EOS = 0, 1, 2
SIZES = ("medium", "7b")
HERE = Path(__file__).resolve().parents[1]


def config(words: int, loc: int, seg: int, heads: int = 3, size: str = "medium") -> CoresConfig:
    """LLaMA 512 x 8, CLIP 256 x 8 at 224 / 14, SAM ViT 192 x 6 at 1024 with global attention in layers 2 and 5; `7b`:
    LLaMA 4096 x 32, CLIP-L and ViT-H. The picture's placeholder needs no row: it is the number after the words."""
    big = size == "7b"
    text = LlamaConfig(
        vocab_size=words,
        hidden_size=4096 if big else 512,
        intermediate_size=11008 if big else 1024,
        num_hidden_layers=32 if big else 8,
        num_attention_heads=32 if big else 8,
        num_key_value_heads=32 if big else 8,
        max_position_embeddings=32768,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    tower = CLIPVisionConfig(
        hidden_size=1024 if big else 256,
        intermediate_size=4096 if big else 1024,
        num_hidden_layers=24 if big else 8,
        num_attention_heads=16 if big else 4,
        image_size=224,
        patch_size=14,
    )
    vit = SamVisionConfig(
        hidden_size=1280 if big else 192,
        mlp_dim=5120 if big else 768,
        num_hidden_layers=32 if big else 6,
        num_attention_heads=16 if big else heads,
        global_attn_indexes=[7, 15, 23, 31] if big else [2, 5],
    )
    return CoresConfig(
        mllm_config=LlavaConfig(
            vision_config=tower, text_config=text, image_token_index=words, image_seq_length=256, projector="linear"
        ),
        segmenter_config=SamConfig(
            vision_config=vit,
            prompt_encoder_config=SamPromptEncoderConfig(),
            mask_decoder_config=SamMaskDecoderConfig(),
        ),
        levels=[
            {"name": "location", "token": "[LOC]", "token_id": loc},
            {"name": "target", "token": "[SEG]", "token_id": seg},
        ],
        refiner="paper",
    )


def build(found: CoresConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> CoresModel:
    """The model, its random weights made where it runs."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return CoresModel(found)
    finally:
        torch.set_default_dtype(before)


def peak_memory() -> float:
    """GB that this process held at most, on the accelerator where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e9


def fresh(script: str, settings: Mapping[str, Any], source: Path = HERE) -> dict[str, float]:
    """What a script measures in a process of its own, with the `cores` of another checkout if one is named."""
    command = [sys.executable, "-W", "ignore", script, "--one", json.dumps(settings)]
    path = os.pathsep.join([str(source / "src"), str(HERE / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def middle(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def table(rows: Mapping[str, Mapping[str, float]], say: Any) -> None:
    """Rows of figures with their names above."""
    heads = list(next(iter(rows.values())))
    wide = max(map(len, rows)) + 2
    say(" " * wide + "".join(f"{head:>14}" for head in heads))
    for name, row in rows.items():
        say(
            f"{name:{wide}}"
            + "".join(f"{row[head]:14.7f}" if head == "loss" else f"{row[head]:14.3f}" for head in heads)
        )


def compare(script: str, cases: Mapping[str, Mapping[str, Any]], old: Path | None, rounds: int, say: Any) -> None:
    """Every case `rounds` times in fresh processes, all cases by turns, the old checkout and ours; medians, ratios."""
    sources = {"": HERE} if old is None else {" old": old, " new": HERE}
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, settings in cases.items():
            for label, source in sources.items():
                runs.setdefault(name + label, []).append(fresh(script, settings, source))
    rows = {}
    for name in cases:
        found = {label: middle(runs[name + label]) for label in sources}
        rows |= {name + label: figures for label, figures in found.items()}
        if old is not None:
            before, after = found[" old"], found[" new"]
            rows[f"{name} new / old"] = {key: after[key] / before[key] if before[key] else 1.0 for key in after}
    table(rows, say)
