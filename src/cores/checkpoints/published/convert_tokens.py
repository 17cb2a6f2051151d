"""The tokenizer and the prompt settings of a published checkpoint, and the ids that it gives its grounding tokens."""

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cores.checkpoints.published.held_tokens import held_tokens, order_faults, row_faults
from cores.errors import CheckpointError
from cores.modeling.configuration import CoresConfig
from cores.modeling.generation_config import write_generation_config
from cores.processing.legacy_tokenizer import pieces_of, read_legacy_tokenizer
from cores.processing.processor import CoresProcessor
from cores.processing.stored import ProcessorSizes
from cores.processing.tokens import find_ids
from cores.prompts import PromptSettings

MODEL = "tokenizer.model"
PUBLISHED_TEXT = 257  # most text tokens of the published programs: 512 less the picture's 255 positions more
LATER_TEXT = 1024
OTHER = {"cores": "lisa", "lisa": "cores"}


def read_tokenizer(
    folder: Path, kind: str, settings: PromptSettings, table: Tensor, base_rows: int | None = None
) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer with its own ids, every one of them with a row of the embedding table.

    Args: `table`: the embeddings (rows, width); `base_rows`: the folder is that of the base, whose table had so many
    rows by its config; grounding tokens come behind.
    Raises CheckpointError with all that does not fit: grounding tokens that are lacking or another program's, ids out
    of order, ids without a row, rows without a token.
    """
    file, held, wrong = tokenizer_files(folder)
    known = len(pieces_of(file)) + len(held)
    lacking = [token for token in settings.level_tokens if token not in held]
    if base_rows is not None and base_rows > known:
        wrong.append(
            f"config.json says {base_rows} tokens, the tokenizer's files name {known}: {base_rows - known} are missing"
        )
    elif lacking and base_rows is None:
        wrong.append(
            f"the tokenizer does not hold {' and '.join(lacking)}, found {', '.join(held) or 'no added tokens'}: "
            f"these are no weights for --from {kind}; take --from {OTHER[kind]}, or --base for a training state"
        )
    if kind == "lisa" and "[SEG_SEMA]" in held:
        wrong.append("the tokenizer holds [SEG_SEMA]: this is a CoReS with two levels; use --from cores")
    tokenizer = None if wrong else read_legacy_tokenizer(file, settings.level_tokens, held)
    if tokenizer is not None or base_rows is None:
        wrong += row_faults(table, known if tokenizer is None else len(tokenizer))
    if tokenizer is None or wrong:
        raise _unfit(folder, wrong)
    return tokenizer


def read_base_tokenizer(folder: Path, table: Tensor) -> PreTrainedTokenizerBase:
    """The tokenizer of a LLaVA without grounding tokens. `table`: its embeddings (rows, width).

    Raises CheckpointError with all that does not fit: as `read_tokenizer`.
    """
    file, held, wrong = tokenizer_files(folder)
    beyond = {token: number for token, number in held.items() if number >= len(table)}
    if beyond:
        wrong.append(f"it gives ids to {beyond}, the embedding table has {len(table)} rows only")
    wrong += row_faults(table, len(pieces_of(file)) + len(held))
    if wrong:
        raise _unfit(folder, wrong)
    return read_legacy_tokenizer(file, (), held)


def _unfit(folder: Path, wrong: list[str]) -> CheckpointError:
    return CheckpointError(f"{folder}: the tokenizer does not fit the weights:\n  " + "\n  ".join(wrong))


def tokenizer_files(folder: Path) -> tuple[Path, dict[str, int], list[str]]:
    """A folder's sentencepiece model, the ids of its added tokens, and what is wrong with those.

    Raises CheckpointError without the first, and when its files contradict each other.
    """
    file = folder / MODEL
    if not file.is_file():
        there = ", ".join(sorted(one.name for one in folder.glob("*token*"))) or "none"
        raise CheckpointError(
            f"{file}: is missing (tokenizer files found: {there}). It is LLaMA's and comes with every release: "
            "download it into the folder, or name a folder that has it as --base"
        )
    pieces = pieces_of(file)
    held = held_tokens(folder, pieces)
    return file, held, order_faults(held, len(pieces))


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
