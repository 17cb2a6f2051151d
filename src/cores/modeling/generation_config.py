"""`generation_config.json` of a checkpoint: answers are greedy, and at most so many tokens long."""

import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils.hub import cached_file

from cores.errors import CheckpointError
from cores.modeling.configuration import CoresConfig

FILE = "generation_config.json"
MAX_NEW_TOKENS = 128  # of a checkpoint that says nothing else
HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "subfolder")


def write_generation_config(folder: str | Path, config: CoresConfig, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
    """Write the file: greedy, as the published programs mean it, with the language model's special tokens."""
    text = config.mllm_config.text_config  # type: ignore[union-attr]
    GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    ).save_pretrained(folder)


def read_max_new_tokens(name: str | Path, **arguments: Any) -> int:
    """Most tokens of an answer, as a model folder or hub id says it; `MAX_NEW_TOKENS` where it says nothing.

    `arguments`: of `from_pretrained`; those that say where on a hub are used. Raises CheckpointError when the file
    cannot be read or its number is no whole number from 1.
    """
    where = {key: arguments[key] for key in HUB_ARGUMENTS if arguments.get(key) is not None}
    file = cached_file(
        str(name),
        FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **where,
    )
    if file is None:
        return MAX_NEW_TOKENS
    try:
        stored = json.loads(Path(file).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    if not isinstance(stored, dict):
        raise CheckpointError(f"{file}: found a {type(stored).__name__}, expected an object with max_new_tokens")
    found = stored.get("max_new_tokens")
    if found is None:
        return MAX_NEW_TOKENS
    if type(found) is not int or found < 1:
        raise CheckpointError(f"{file}: max_new_tokens: found {found!r:.40}, expected a whole number from 1")
    return found
