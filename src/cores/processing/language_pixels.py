"""Pictures for the language model's tower: one rule a family, with what stands for a picture in its prompt.

Two rules: the published programs' square (LLaVA v1 and 1.5), and the family's own image processor, on Pillow.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedTokenizerBase

from cores.checkpoint_errors import checkpoint_errors, in_words
from cores.data.sample import Raster
from cores.errors import CheckpointError, DataError
from cores.processing.picture_layouts import LAYOUTS, Facts, Layout, Pixels
from cores.processing.pixels import for_language
from cores.processing.stored import SQUARE, ProcessorSizes
from cores.processing.tokens import encode, find_ids
from cores.vocabulary import IM_END

FILE = "preprocessor_config.json"
SQUARES = ("llava", "vipllava")  # model types whose pictures are one square each, as the published programs see them


class PixelRule(Protocol):
    """How pictures become tensors and places in a prompt.

    `written`: what a chat template writes for a picture; `around`: text before and after it that belongs to the
    prompt; `last`: the token that ends a picture in a prompt, behind which its question goes on.
    """

    written: str
    around: tuple[str, str]
    last: str

    def __call__(self, image: Image.Image | Raster) -> dict[str, Tensor]:
        """One RGB picture: `pixel_values` and what else its family gives, each with a first axis of 1 or more."""

    def text(self, pixels: Pixels) -> str:
        """What stands for the picture in a prompt, as the family's own processor writes it, without `around`."""

    def layout(self, pixels: Pixels) -> list[int]:
        """The same as ids: placeholders and what is laid out between them."""

    def batch(self, each: Sequence[Pixels]) -> dict[str, Tensor]:
        """Several pictures for the model: joined along the first axis, filled up with 0 along the others."""

    def save(self, folder: Path) -> None:
        """Write what `processor_config.json` does not hold."""


class SquareRule:
    """The published programs': a square of a fixed side, which takes a fixed number of positions."""

    written = "<image>"
    around = ("", "")

    def __init__(self, sizes: ProcessorSizes, tokenizer: PreTrainedTokenizerBase) -> None:
        self.sizes = sizes
        self._image = _token(tokenizer, sizes.image_token_id)
        self.last = self._image or IM_END

    def __call__(self, image: Image.Image | Raster) -> dict[str, Tensor]:
        return {"pixel_values": for_language(image, self.sizes.mllm_image_size, self.sizes.clip_fit)[None]}

    def text(self, pixels: Pixels) -> str:
        """Empty where no token stands for the placeholder."""
        return (self._image or "") * self.sizes.image_tokens

    def layout(self, pixels: Pixels) -> list[int]:
        return [self.sizes.image_token_id] * self.sizes.image_tokens

    def batch(self, each: Sequence[Pixels]) -> dict[str, Tensor]:
        return join(each)

    def save(self, folder: Path) -> None:
        pass


class ImageProcessorRule:
    """A family's own image processor, and its layout.

    Raises CheckpointError when the tokenizer lacks a token of the layout, or the placeholder is no token of it.
    """

    def __init__(self, sizes: ProcessorSizes, tokenizer: PreTrainedTokenizerBase, processor: Any) -> None:
        self.tokenizer, self.processor = tokenizer, processor
        self._layout = _known(sizes.pixel_rule)
        image = _token(tokenizer, sizes.image_token_id)
        if image is None:
            raise CheckpointError(
                f"image_token_id: found {sizes.image_token_id}, expected the placeholder of {sizes.pixel_rule} in its "
                f"tokenizer of {len(tokenizer)} tokens"
            )
        find_ids(tokenizer, self._layout.needs)
        self._facts = Facts(image, sizes.image_tokens, processor)
        self.written = self._layout.written or image
        self.around = self._layout.around
        self.last = self._layout.needs[-1] if self._layout.needs else image

    def __call__(self, image: Image.Image | Raster) -> dict[str, Tensor]:
        if isinstance(image, Raster):
            image = Image.fromarray(image.values)
        try:
            found = self.processor(images=[image], return_tensors="pt", **self._layout.asks)
        except Exception as error:  # each family has its own limits, and its own errors for them
            size = f"{image.width} x {image.height} pixels"
            raise DataError(f"the language model's image processor cannot take {size}: {in_words(error)}") from None
        return {name: torch.as_tensor(value) for name, value in found.items()}

    def text(self, pixels: Pixels) -> str:
        return self._layout.text(self._facts, pixels)

    def layout(self, pixels: Pixels) -> list[int]:
        return encode(self.tokenizer, self.text(pixels))

    def batch(self, each: Sequence[Pixels]) -> dict[str, Tensor]:
        ours = self._layout.ours
        return join([{name: value for name, value in one.items() if name not in ours} for one in each])

    def save(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)


def pixel_rule(sizes: ProcessorSizes, tokenizer: PreTrainedTokenizerBase, processor: Any = None) -> PixelRule:
    """The rule that these sizes name. `processor`: the family's image processor, where it takes one.

    Raises CheckpointError when there is none or the tokenizer does not go with it.
    """
    if sizes.pixel_rule == SQUARE:
        return SquareRule(sizes, tokenizer)
    _known(sizes.pixel_rule)
    if processor is None:
        raise CheckpointError(f"pixel_rule {sizes.pixel_rule}: needs the family's image processor ({FILE})")
    return ImageProcessorRule(sizes, tokenizer, processor)


def language_sizes(config: Any) -> dict[str, Any]:
    """What `ProcessorSizes` holds of a multimodal LLM, by its config.

    Raises CheckpointError that names the families, when this one's pictures are not known.
    """
    found = {"pixel_rule": config.model_type, "image_token_id": config.image_token_id}
    if config.model_type in SQUARES:
        side = config.vision_config.image_size
        patches = (side // config.vision_config.patch_size) ** 2
        whole = getattr(config, "vision_feature_select_strategy", "default") == "full"  # with the class token
        count = patches + whole
        return found | {"pixel_rule": SQUARE, "mllm_image_size": side, "image_tokens": count}
    return found | {"mllm_image_size": 0, "image_tokens": _known(config.model_type).tile(config)}


def load_image_processor(folder: Path, config: Any) -> Any:
    """A family's image processor from the folder of its weights; None for those that see squares.

    Args: `config`: the multimodal LLM's.
    Raises CheckpointError when the folder has none, it does not go with the config, or it cannot run here.
    """
    if config.model_type in SQUARES:
        return None
    processor = read_image_processor(folder, config.model_type)
    _known(config.model_type).fit(processor, config)
    return processor


def read_image_processor(folder: Path, family: str) -> Any:
    """The image processor that a folder holds, on Pillow where the family has one. Raises CheckpointError."""
    if not _known(family).pillow and find_spec("torchvision") is None:
        raise CheckpointError(f"{family}: its image processor has no version for Pillow: pip install torchvision")
    with checkpoint_errors(folder / FILE, "be read as an image processor", "take the file of its own weights"):
        return AutoImageProcessor.from_pretrained(folder, backend="pil")


def _known(family: str) -> Layout:
    if family not in LAYOUTS:
        known = ", ".join(sorted([*SQUARES, *LAYOUTS]))
        raise CheckpointError(f"{family}: how it sees pictures is not known here; known are {known}")
    return LAYOUTS[family]


def join(each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of several pictures along the first axis, each filled up with 0 to the largest along the others."""
    return {name: _join([one[name] for one in each]) for name in each[0]}


def _join(parts: Sequence[Tensor]) -> Tensor:
    largest = torch.tensor([part.shape[1:] for part in parts]).amax(0).tolist()
    whole = parts[0].new_zeros(sum(len(part) for part in parts), *largest)
    first = 0
    for part in parts:
        whole[(slice(first, first + len(part)), *(slice(length) for length in part.shape[1:]))] = part
        first += len(part)
    return whole


def _token(tokenizer: PreTrainedTokenizerBase, number: int) -> str | None:
    """The token of an id, None where the id has none."""
    found = tokenizer.convert_ids_to_tokens(number) if number < len(tokenizer) else None
    return found or None
