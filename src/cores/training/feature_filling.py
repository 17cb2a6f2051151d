"""Fill the cache of the frozen segmenter's features before a run: every picture of a recipe's sources, once."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cores.checkpoints.load import as_device
from cores.data.sources.base import FileSource, Source
from cores.errors import RecipeError
from cores.processing.pixels import open_picture
from cores.processing.processor import CoresProcessor
from cores.recipe import Recipe
from cores.training.arguments import training_arguments
from cores.training.drawing import OpenSource, draws_of
from cores.training.feature_cache import FeatureCache, open_cache, picture_key
from cores.training.start import start
from cores.training.trainable import choose_parts

Watch = Callable[[Iterable[Any], int], Iterable[Any]]
PER_PASS = 4  # pictures that are encoded at once


class Unkept(Dataset[tuple[str, Tensor]]):
    """All pictures of some sources, as (key, pixels for the segmenter (3, S, S), or (0, S, S) where they are kept)."""

    def __init__(self, sources: Sequence[Source], processor: CoresProcessor, cache: FeatureCache) -> None:
        self.sources, self.processor, self.cache = sources, processor, cache
        self.places = [(source, number) for source in sources for number in range(len(source))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> tuple[str, Tensor]:
        source, number = self.places[place]
        image = source.record(number).image if isinstance(source, FileSource) else source[number].image
        opened = open_picture(image)
        key = picture_key(opened)
        return key, self.processor.picture(opened, key in self.cache).segmenter_pixels


def fill_features(
    recipe: Recipe, open_source: OpenSource, watch: Watch, device: str | None = None
) -> tuple[int, int, Path]:
    """Keep the features of every picture that a recipe's run can draw.

    Args: `watch`: shows how far batches of pictures have come, of so many; `device`: cpu or cuda, None takes CUDA
    where there is one. What was kept already stays, so that a stopped command goes on.
    Returns: how many pictures there are, how many of them were encoded now, and the folder.
    Raises RecipeError and CheckpointError as a run of the recipe does, DataError for a picture that cannot be read.
    """
    if recipe.data.features is None:
        raise RecipeError("data.features: is not set: say in which folder features are kept")
    mixture = draws_of(recipe, open_source, seed=0, step=1).mixture
    sources = {source.name: source for family in mixture.sources for source in family}
    arguments = training_arguments(recipe, Path("unused"), device=device, quiet=True)
    _, model, processor = start(recipe, arguments.seed)
    choose_parts(model, recipe.model.train, recipe.lora)
    cache = open_cache(recipe, model, processor, arguments)
    assert cache is not None
    segmenter = model.segmenter.to(as_device(device)).eval()
    where = next(segmenter.parameters()).device
    pictures = Unkept(list(sources.values()), processor, cache)
    loader: DataLoader[Any] = DataLoader(
        pictures, PER_PASS, collate_fn=list, num_workers=arguments.dataloader_num_workers
    )
    encoded = 0
    for batch in watch(loader, len(loader)):
        missing = {key: pixels for key, pixels in batch if len(pixels) and key not in cache}
        if missing and cache.room != 0:
            computing = torch.bfloat16 if arguments.bf16 else torch.float16
            with torch.no_grad(), torch.autocast(where.type, computing, enabled=arguments.bf16 or arguments.fp16):
                features = segmenter.encode(torch.stack(list(missing.values())).to(where))
            cache.write(list(missing), features)
            encoded += sum(key in cache for key in missing)
    return len(pictures), encoded, cache.folder
