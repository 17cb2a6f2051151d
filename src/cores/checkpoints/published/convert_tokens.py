"""The tokenizer and the prompt settings of a published checkpoint, and the ids that it gives its grounding tokens."""

import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from cores.checkpoints.published.convert_config import read_json
from cores.errors import CheckpointError
from cores.modeling.configuration import CoresConfig
from cores.modeling.generation_config import write_generation_config
from cores.processing.legacy_tokenizer import read_legacy_tokenizer
from cores.processing.processor import CoresProcessor
from cores.processing.stored import ProcessorSizes
from cores.processing.tokens import find_ids
from cores.prompts import PromptSettings

MODEL = "tokenizer.model"
ADDED = "added_tokens.json"
PUBLISHED_TEXT = 257  # most text tokens of the published programs: 512 less the picture's 255 positions more
LATER_TEXT = 1024
OTHER = {"cores": "lisa", "lisa": "cores"}


def read_tokenizer(folder: Path, kind: str, settings: PromptSettings, new: bool = False) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer with its own ids. `new`: the folder is the base's, grounding tokens come behind.

    Raises CheckpointError when it lacks grounding tokens, or holds those of another program.
    """
    file, held = tokenizer_files(folder)
    lacking = [token for token in settings.level_tokens if token not in held]
    if lacking and not new:
        raise CheckpointError(
            f"{folder / ADDED}: does not hold {' and '.join(lacking)}, found {', '.join(held) or 'no such file'}: "
            f"these are no weights for --from {kind}; take --from {OTHER[kind]}, or --base for a training state"
        )
    if kind == "lisa" and "[SEG_SEMA]" in held:
        raise CheckpointError(f"{folder / ADDED}: holds [SEG_SEMA]: this is a CoReS with two levels; use --from cores")
    return read_legacy_tokenizer(file, settings.level_tokens, held)


def read_base_tokenizer(folder: Path, rows: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a LLaVA without grounding tokens. Raises CheckpointError when a token of it has no row."""
    file, held = tokenizer_files(folder)
    beyond = {token: number for token, number in held.items() if number >= rows}
    if beyond:
        raise CheckpointError(f"{folder / ADDED}: gives ids to {beyond}, the embedding table has {rows} rows only")
    return read_legacy_tokenizer(file, (), held)


def tokenizer_files(folder: Path) -> tuple[Path, dict[str, int]]:
    """A folder's sentencepiece model and the ids of its added tokens. Raises CheckpointError without the first."""
    file = folder / MODEL
    if not file.is_file():
        there = ", ".join(sorted(one.name for one in folder.glob("*token*"))) or "none"
        raise CheckpointError(
            f"{file}: is missing (tokenizer files found: {there}). It is LLaMA's and comes with every release: "
            "download it into the folder, or name a folder that has it as --base"
        )
    if not (folder / ADDED).is_file():
        return file, {}
    held = read_json(folder / ADDED, "added tokens and ids")
    return file, {str(token): int(number) for token, number in held.items()}


def levels_of(
    tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, rows: int, where: object
) -> list[dict[str, object]]:
    """The levels with the ids that the tokenizer gives them. Raises CheckpointError when one has no row."""
    ids = find_ids(tokenizer, settings.level_tokens)
    largest = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    if largest[1] >= rows:
        raise CheckpointError(
            f"{where}: the embedding table has {rows} rows, but the tokenizer gives {largest[0]} the id {largest[1]}: "
            "weights and tokenizer are not of the same checkpoint"
        )
    named = zip(settings.level_names, settings.level_tokens, ids, strict=True)
    return [{"name": name, "token": token, "token_id": number} for name, token, number in named]


def make_processor(
    tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, config: CoresConfig
) -> CoresProcessor:
    """The processor of a converted model: pixels and text lengths as the published programs have them."""
    mllm: Any = config.mllm_config
    segmenter: Any = config.segmenter_config
    sizes = ProcessorSizes(
        mllm_image_size=mllm.vision_config.image_size,
        image_tokens=mllm.image_seq_length,
        image_token_id=mllm.image_token_id,
        segmenter_image_size=segmenter.vision_config.image_size,
        clip_fit="crop",
        max_text_tokens=PUBLISHED_TEXT if mllm.image_seq_length <= 256 else LATER_TEXT,
    )
    return CoresProcessor(tokenizer, settings, sizes)


def write_settings(folder: Path, config: CoresConfig, processor: CoresProcessor, tokenizer_model: Path) -> None:
    """Everything of a model folder but weights and card. The sentencepiece model is kept, for `cores export`."""
    config.save_pretrained(folder)
    write_generation_config(folder, config)
    processor.save_pretrained(folder)
    shutil.copyfile(tokenizer_model, folder / MODEL)
