"""transformers around its files: bars and warnings of its own, which are noise beside ours."""

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


@contextmanager
def only_errors() -> Iterator[None]:
    """No warnings of transformers inside; as it was, after."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
