"""Any instruct model of transformers as a speaker, through its own chat template, image processor and `generate`.

Legend: h, w = a picture's size in pixels.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cores.errors import CheckpointError
from cores.geometry import Size
from cores.processing.pixels import key_of
from cores.words.grounding import Grounding
from cores.words.speaker import TEMPERATURE, Look, Spoken, seed_of

Pixels = Mapping[str, Tensor]


class HubSpeaker:
    """An instruct model of transformers, asked through its own chat template.

    `tokenizer`, `image_processor`: its own; whole processors often cannot be built without video libraries. Raises
    CheckpointError when its chat template cannot ask about a picture.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_processor: Any, grounding: Grounding
    ) -> None:
        self.model, self.tokenizer, self.image_processor = model.eval(), tokenizer, image_processor
        self.grounding = grounding
        if tokenizer.chat_template is None:
            raise CheckpointError(f"{tokenizer.name_or_path}: has no chat template: take an instruct model's folder")

    def look(self, image: Image.Image) -> Look:
        """Make the picture's pixels as the family does."""
        made: Mapping[str, Tensor] = self.image_processor(images=[image], return_tensors="pt")
        pixels = {
            name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in made.items()
            if isinstance(value, Tensor)
        }
        size = (image.height, image.width)
        return Look(size, seen_size(pixels, self.model.config, size), key_of(image), pixels)

    @torch.no_grad()
    def ask(self, look: Look, prompts: Sequence[str], max_new_tokens: int, draw: int | None = None) -> list[Spoken]:
        return [self._ask(look, prompt, max_new_tokens, draw) for prompt in prompts]

    def _ask(self, look: Look, prompt: str, max_new_tokens: int, draw: int | None) -> Spoken:
        ids = self.ids(look, prompt)[None].to(self.model.device)
        model: Any = self.model
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **look.held}
        if "mm_token_type_ids" in _parameters(model):
            inputs["mm_token_type_ids"] = (ids == image_token_of(model.config)).int()
        how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if draw is not None:
            how = {"do_sample": True, "temperature": TEMPERATURE, "top_p": None, "top_k": None}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0 if draw is None else seed_of(draw, look.key, prompt))
            out = model.generate(
                **inputs,
                **how,
                max_new_tokens=max_new_tokens,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
            )
        said = out.sequences[0, ids.shape[1] :]
        chances = torch.stack([step[0].float().log_softmax(-1) for step in out.logits])  # (tokens, vocabulary)
        score = float(chances.gather(1, said[:, None]).mean())
        ends = _ends(model)
        closed = bool(len(said)) and int(said[-1]) in ends
        kept = [number for number in said.tolist() if number not in ends]
        text = self.tokenizer.decode(kept, skip_special_tokens=False)
        return Spoken(text.strip(), score, len(kept), not closed and len(said) >= max_new_tokens)

    def ids(self, look: Look, prompt: str) -> Tensor:
        """A question through the chat template, (tokens,), with one image token for each that the picture takes."""
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        image = image_token_of(self.model.config)
        place = ids.index(image)
        return torch.tensor([*ids[:place], *[image] * image_tokens(look.held, self.model.config), *ids[place + 1 :]])


def image_token_of(config: Any) -> int:
    """The id that stands for a piece of a picture."""
    return int(config.image_token_id)


def image_tokens(pixels: Pixels, config: Any) -> int:
    """How many image tokens stand for a picture, by the pixels that its family's image processor made."""
    if "image_grid_thw" in pixels:  # Qwen, GLM: patches, merged in squares
        return int(pixels["image_grid_thw"].prod()) // int(config.vision_config.spatial_merge_size) ** 2
    if config.model_type == "internvl":  # as many for each tile
        return len(pixels["pixel_values"]) * int(config.image_seq_length)
    vision = config.vision_config  # LLaVA
    patches = (int(vision.image_size) // int(vision.patch_size)) ** 2
    return patches if config.vision_feature_select_strategy == "default" else patches + 1


def seen_size(pixels: Pixels, config: Any, size: Size) -> Size:
    """The size (h, w) at which a model sees a picture; its own where the family counts no pixels."""
    if "image_grid_thw" not in pixels:
        return size
    _, down, across = pixels["image_grid_thw"][0].tolist()
    patch = int(config.vision_config.patch_size)
    return int(down) * patch, int(across) * patch


def _ends(model: Any) -> set[int]:
    """The ids that end an answer."""
    found = model.generation_config.eos_token_id
    return set(found) if isinstance(found, list) else {found}


def _parameters(model: Any) -> set[str]:
    return set(inspect.signature(model.forward).parameters)
