"""transformers around its files: a bar for each, which is noise beside our own, and errors of many kinds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers.utils import logging

from cores.errors import CheckpointError


@contextmanager
def quietly() -> Iterator[None]:
    """No bars of transformers inside; as it was, after.

    To save a model transformers imports DeepSpeed, where it is installed, which warns that there is no GPU: told so.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Files that cannot be read, or are cut off, are a CheckpointError with the folder's name."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}; is it whole?") from None
