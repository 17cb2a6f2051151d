"""Give a tiny model that was trained before the tokenizer's last tokens rows for them: its answers stay as they are.

Legend: old, new = tokens of the model's vocabulary and of the longer one, width = 256.
"""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cores.checkpoints.find import shipped
from cores.checkpoints.load import load, load_model
from cores.checkpoints.runs.bases import PROJECTION, load_parts, write_difference
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.save import save
from cores.errors import CheckpointError
from cores.modeling.mllms.llava import LlavaMLLM
from cores.processing import CoresProcessor
from cores.scenes.tokenizer import build_tokenizer

SEED = 0


def extend_shipped(out: Path, replace: bool = False) -> list[str]:
    """Write the models that come with cores, with rows for all tokens of `build_tokenizer`, into `out`.

    Gives the new tokens. Raises CheckpointError when an old token has another id in the longer vocabulary; UserError
    when `out` holds models already (without `replace`) or cannot be written.
    """
    model, processor = load(None, "cpu", torch.float32)
    parts = load_parts(Base({"bases": "shipped"}), dtype=torch.float32)
    card = (shipped("cores-tiny") / "README.md").read_text("utf-8")
    tokenizer = build_tokenizer()
    new = new_tokens(processor.tokenizer, tokenizer)
    for mllm in (model.mllm, parts.mllm):
        grow(mllm, len(tokenizer))
    processor = CoresProcessor(tokenizer, processor.writer, processor.sizes)
    folder = save(model, processor, out / "cores-tiny", dtype=torch.float16, replace=replace)
    millions = f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million"
    (folder / "README.md").write_text(re.sub(r"[\d.]+ million", millions, card), "utf-8")
    with tempfile.TemporaryDirectory(prefix="bases-") as part:
        bases = Path(part)
        parts.mllm.save_pretrained(bases / "mllm")
        parts.segmenter.save_pretrained(bases / "segmenter")
        if parts.projection is not None:
            save_file({name: value.contiguous() for name, value in parts.projection.items()}, bases / PROJECTION)
        write_difference(bases, load_model(folder, torch.float16), out / "bases-tiny")
    return new


def new_tokens(old: PreTrainedTokenizerBase, longer: PreTrainedTokenizerBase) -> list[str]:
    """Tokens that only the longer vocabulary has, by id. Raises CheckpointError unless they follow the old ones."""
    before, after = old.get_vocab(), longer.get_vocab()
    moved = sorted(token for token, number in before.items() if after.get(token) != number)
    if moved:
        raise CheckpointError(f"the vocabulary cannot be extended: {_shown(moved)} would have other ids")
    return sorted(set(after) - set(before), key=after.__getitem__)


def grow(mllm: LlavaMLLM, size: int) -> None:
    """Make embedding and head (old, width) as long as the vocabulary (new, width), of `size` rows.

    A new token's embedding is drawn as widely as the old ones are spread: different words read differently at once.
    Its row in the head is the mean of the old ones: a mean of logits never exceeds the largest of them, so no new
    token is ever said before it is taught.
    """
    old = mllm.get_input_embeddings().weight.shape[0]
    mllm.resize_token_embeddings(size, mean_resizing=False)
    words: Tensor = mllm.get_input_embeddings().weight.data
    head: Tensor = mllm.get_output_embeddings().weight.data
    drawn = torch.randn(size - old, words.shape[1], generator=torch.Generator().manual_seed(SEED))
    words[old:] = (drawn * words[:old].float().std()).to(words.dtype)
    head[old:] = head[:old].float().mean(0).to(head.dtype)


def _shown(tokens: Sequence[str], most: int = 8) -> str:
    return ", ".join(tokens[:most]) + (f" and {len(tokens) - most} more" if len(tokens) > most else "")
