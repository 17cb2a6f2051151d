"""transformers around its files: a bar for each, which is noise beside our own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging


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
