"""A model folder: config, weights, tokenizer, processor, prompt format, and a card that says what it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cores import __version__
from cores.checkpoints.library_errors import quietly
from cores.checkpoints.tensors.digests import write_digests
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor
from cores.whole import whole_folder

MAX_SHARD = "5GB"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model's README says.

    `base`, `data`: names; `figures`: by name, as fractions of 1, such as {"val gIoU": 0.594}.
    """

    title: str = "A CoReS model"
    about: str = ""
    license: str = "apache-2.0"
    base: Sequence[str] = ()
    data: Sequence[str] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


def save(
    model: CoresModel,
    processor: CoresProcessor,
    folder: str | Path,
    *,
    card: Card | None = None,
    dtype: torch.dtype | None = None,
    replace: bool = False,
) -> Path:
    """Write a model folder, whole or not at all; gives its path.

    Args: `dtype` of the stored weights, None for the model's own; `replace`: a folder that is there is replaced.
    Raises UserError when the folder is there (without `replace`) or cannot be written, and when the disk is full.
    """
    folder = Path(folder)
    with whole_folder(folder, replace) as part:
        write_model(model, processor, part, card or Card(), dtype)
    return folder


def write_model(
    model: CoresModel, processor: CoresProcessor, folder: Path, card: Card, dtype: torch.dtype | None = None
) -> None:
    """Write a model folder's files into a folder that exists. `dtype`: of the weights, None for the model's own.

    Errors of writing come out as they are; inside `whole_folder` a full disk is a UserError.
    """
    state = {
        name: value.to(dtype) if dtype is not None and value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    stored = dtype or model.dtype
    with quietly():
        model.save_pretrained(folder, state_dict=state, max_shard_size=MAX_SHARD)
    config = model.config.__class__.from_pretrained(folder)
    config.dtype = stored  # save_pretrained writes the dtype in memory
    config.save_pretrained(folder)
    write_digests(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(card_text(model, card), encoding="utf-8")


def card_text(model: CoresModel, card: Card) -> str:
    """The README of a model folder: front matter for hubs, then words."""
    config = model.config
    chain = " -> ".join(f"{level['name']} `{level['token']}`" for level in config.levels)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    facts = {
        "chain": chain,
        "token refiner": config.refiner,
        "style": config.style,
        "parameters": f"{parameters:.1f} million",
        "base": ", ".join(f"`{name}`" for name in card.base),
        "trained on": ", ".join(f"`{name}`" for name in card.data),
        **{name: f"{value:.4f}" for name, value in card.figures.items()},
        "written by": f"cores {__version__}",
    }
    cells = {name: value.replace("|", "\\|") for name, value in facts.items() if value}  # sources have bars in them
    rows = "".join(f"| {name} | {value} |\n" for name, value in cells.items())
    about = f"{card.about}\n\n" if card.about else ""
    return (
        f"---\nlibrary_name: cores\npipeline_tag: image-segmentation\nlicense: {card.license}\n"
        "tags:\n- reasoning-segmentation\n- cores\n---\n\n"
        f"# {card.title}\n\n{about}Reasoning segmentation with a chain of reasoning and segmenting "
        "([CoReS](https://arxiv.org/abs/2404.05673)): ask for something in words, get its mask and a sentence.\n\n"
        "```python\nimport cores\n\n"
        'found = cores.load("path/of/this/folder").segment("picture.jpg", ["the thing one would hold to pour"])\n'
        "print(found[0].answer)\n```\n\n"
        f"| | |\n| --- | --- |\n{rows}"
    )
