"""Fill the caches of frozen encoders' features before a run: every picture of a recipe's sources, once."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cores.checkpoints.load import as_device
from cores.data.sources.base import FileSource, Source
from cores.errors import RecipeError
from cores.processing.pixels import Picture, open_picture
from cores.processing.processor import CoresProcessor
from cores.recipe import Encoder, Recipe
from cores.training.arguments import training_arguments
from cores.training.drawing import OpenSource, draws_of
from cores.training.feature_cache import picture_key
from cores.training.kept import Caches, encode, open_caches
from cores.training.start import start
from cores.training.trainable import choose_parts

Watch = Callable[[Iterable[Any], int], Iterable[Any]]
PER_PASS = 4  # pictures that are encoded at once


class Pictures(Dataset[tuple[str, Picture]]):
    """All pictures of some sources with their keys; for the segmenter only where its features are not kept yet."""

    def __init__(self, sources: Sequence[Source], processor: CoresProcessor, caches: Caches) -> None:
        self.sources, self.processor, self.caches = sources, processor, caches
        self.places = [(source, number) for source in sources for number in range(len(source))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> tuple[str, Picture]:
        source, number = self.places[place]
        image = source.record(number).image if isinstance(source, FileSource) else source[number].image
        opened = open_picture(image)
        key = picture_key(opened)
        unseen = "segmenter" not in self.caches or key in self.caches["segmenter"]
        return key, self.processor.picture(opened, unseen, keyed=False)


def fill_features(
    recipe: Recipe, open_source: OpenSource, watch: Watch, device: str | None = None
) -> tuple[int, int, list[Path]]:
    """Keep the features of every picture that a recipe's run can draw.

    Args: `watch`: shows how far batches of pictures have come, of so many; `device`: cpu or cuda, None takes CUDA
    where there is one. What was kept already stays, so that a stopped command goes on.
    Returns: how many pictures there are, how many of them were encoded now, and the folder of each encoder.
    Raises RecipeError and CheckpointError as a run of the recipe does, DataError for a picture that cannot be read.
    """
    if recipe.data.features is None:
        raise RecipeError("data.features: is not set: say in which folder features are kept")
    mixture = draws_of(recipe, open_source, seed=0, step=1).mixture
    sources = {source.name: source for family in mixture.sources for source in family}
    arguments = training_arguments(recipe, Path("unused"), device=device, quiet=True)
    _, model, processor = start(recipe, arguments.seed)
    choose_parts(model, recipe.model.train, recipe.lora)
    caches = open_caches(recipe, model, processor, arguments)
    model = model.to(as_device(device)).eval()
    pictures = Pictures(list(sources.values()), processor, caches)
    loader: DataLoader[Any] = DataLoader(
        pictures, PER_PASS, collate_fn=list, num_workers=arguments.dataloader_num_workers
    )
    encoded: set[str] = set()
    computing = torch.bfloat16 if arguments.bf16 else torch.float16
    for batch in watch(loader, len(loader)):
        for encoder, cache in caches.items():
            missing = {key: picture for key, picture in batch if key not in cache}
            if missing and cache.room != 0:
                pixels = pixels_for(encoder, processor, list(missing.values())).to(model.device)
                with torch.no_grad(), torch.autocast(pixels.device.type, computing, arguments.bf16 or arguments.fp16):
                    cache.write(list(missing), encode(encoder, model, pixels))
                encoded |= {key for key in missing if key in cache}
    return len(pictures), len(encoded), [cache.folder for cache in caches.values()]


def pixels_for(encoder: Encoder, processor: CoresProcessor, pictures: Sequence[Picture]) -> Tensor:
    """Pixels (images, 3, side, side) of pictures, for one encoder."""
    if encoder == "segmenter":
        return torch.stack([picture.segmenter_pixels for picture in pictures])
    return processor.language_pixels(pictures)["pixel_values"]
