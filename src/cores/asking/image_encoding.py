"""Images before questions: looked at once, and what stands before a question read once.

Legend: (H, W) = the picture's own size in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cores.asking.answers import passes
from cores.asking.drafts import Drafts
from cores.asking.prefixes import Prefixes
from cores.modeling.model import CoresModel
from cores.modeling.prefix_cache import PrefixCache, extend_prefix, read_prefixes
from cores.modeling.segmenters.base import Features
from cores.processing.language_pixels import join
from cores.processing.pixels import Picture
from cores.processing.processor import CoresProcessor

PICTURES_PER_PASS = 4  # that are encoded together, and whose prefixes are read together


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class EncodedImage:
    """An image that a model has looked at; any number of questions may follow. Belongs to the model that made it.

    `pixels`: for the language model, on its device; `features`: the segmenter's own (`picture` has no pixels for it).
    `turn`: in a conversation, the image as its last turn found it, and the ids of that turn; the next question stands
    behind it. `drafts`: in a talk, what its answers are guessed from, earlier ones too; None: the asker's own.
    """

    picture: Picture
    pixels: Mapping[str, Tensor]
    features: Features
    turn: "tuple[EncodedImage, Tensor] | None" = None
    drafts: Drafts | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) after EXIF rotation."""
        return self.picture.size

    @property
    def resized(self) -> tuple[int, int]:
        """(h, w) inside the segmenter's square."""
        return self.picture.resized


class ImageEncoding:
    """Looks at images with a model, and reads the prefixes of questions about them.

    Args: `seed`: for in-context exemplars drawn at random; `prefixes`: those that are kept.
    """

    def __init__(self, model: CoresModel, processor: CoresProcessor, seed: int, prefixes: Prefixes) -> None:
        self.model, self.processor, self.seed, self.prefixes = model, processor, seed, prefixes

    @torch.no_grad()
    def encode(self, images: Sequence[Path | str | Image.Image]) -> list[EncodedImage]:
        """Look at several images once, in their order. Raises DataError when one cannot be read."""
        device, dtype, found = self.model.device, self.model.dtype, []
        for some in passes(len(images), PICTURES_PER_PASS):
            pictures = [self.processor.picture(image) for image in images[some]]
            pixels = torch.stack([picture.segmenter_pixels for picture in pictures])
            features = self.model.encode(pixels.to(device, dtype))
            for number, picture in enumerate(pictures):
                language = self.processor.language_pixels([picture], device, dtype)
                looked = replace(picture, segmenter_pixels=picture.segmenter_pixels[:0].clone())  # seen already
                found.append(EncodedImage(looked, language, features[[number]]))
        return found

    def prefixes_of(self, images: Sequence[EncodedImage]) -> list[PrefixCache]:
        """What stands before the questions about these images; what is not kept is read, some of them at a time."""
        ids = [self.prefix_ids(image) for image in images]

        def read(missing: Sequence[int]) -> list[PrefixCache]:
            found: dict[int, PrefixCache] = {}
            fresh = [number for number in missing if images[number].turn is None]
            for some in passes(len(fresh), PICTURES_PER_PASS if self.model.mllm.packs else 1):
                pixels = join([images[number].pixels for number in fresh[some]])
                words = [ids[number].to(self.model.device) for number in fresh[some]]
                found |= zip(fresh[some], read_prefixes(self.model, pixels, words), strict=True)
            for number in missing:
                if (turn := images[number].turn) is not None:
                    (before,) = self.prefixes_of([turn[0]])
                    found[number] = extend_prefix(self.model, before, turn[1])
            return [found[number] for number in missing]

        return self.prefixes.of(images, ids, read)

    def prefix_ids(self, image: EncodedImage) -> Tensor:
        """Ids (tokens,) of all that stands before a question about an image."""
        if image.turn is None:
            return self.processor.prefix(self.seed, image.picture.key, image.picture)
        before, turn = image.turn
        return torch.cat([self.prefix_ids(before), turn])
