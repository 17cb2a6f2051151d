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
from cores.processing.language_pixels import language_sizes, pixel_rule
from cores.processing.pixels import key_of
from cores.processing.stored import ProcessorSizes
from cores.processing.tokens import encode
from cores.words.grounding import Grounding
from cores.words.speaker import TEMPERATURE, Look, Spoken, seed_of


class HubSpeaker:
    """An instruct model of transformers, asked through its own chat template.

    `tokenizer`, `image_processor` (None: see `load_image_processor`): its own; whole processors often cannot be built
    without video libraries. `ends`: ids that end an answer. Raises CheckpointError when there is no chat template, or
    how the family sees pictures is not known here.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, image_processor: Any, grounding: Grounding
    ) -> None:
        self.model, self.tokenizer, self.grounding = model.eval(), tokenizer, grounding
        if tokenizer.chat_template is None:
            raise CheckpointError(f"{tokenizer.name_or_path}: has no chat template: take an instruct model's folder")
        sizes = ProcessorSizes(**language_sizes(model.config), segmenter_image_size=1)
        told = model.generation_config.eos_token_id
        self.ends = sorted({*(told if isinstance(told, list) else [told]), tokenizer.eos_token_id} - {None})
        self.rule = pixel_rule(sizes, tokenizer, image_processor)

    def look(self, image: Image.Image) -> Look:
        """Make the picture's pixels as the family does."""
        pixels = self.rule(image)
        size = (image.height, image.width)
        return Look(size, seen_size(pixels, self.model.config, size), key_of(image), pixels)

    @torch.no_grad()
    def ask(self, look: Look, prompts: Sequence[str], max_new_tokens: int, draw: int | None = None) -> list[Spoken]:
        return [self._ask(look, prompt, max_new_tokens, draw) for prompt in prompts]

    def _ask(self, look: Look, prompt: str, max_new_tokens: int, draw: int | None) -> Spoken:
        ids = self.ids(look, prompt)[None].to(self.model.device)
        model: Any = self.model
        pixels = {
            name: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for name, value in self.rule.batch([look.held]).items()
        }
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
        if "mm_token_type_ids" in _parameters(model):
            inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
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
                eos_token_id=self.ends,
                suppress_tokens=[model.config.image_token_id],  # no picture belongs to one that is said
                pad_token_id=self.ends[0],
            )
        said = out.sequences[0, ids.shape[1] :]
        chances = torch.stack([step[0].float().log_softmax(-1) for step in out.logits])  # (tokens, vocabulary)
        score = float(chances.gather(1, said[:, None]).mean())
        closed = bool(len(said)) and int(said[-1]) in self.ends
        kept = [number for number in said.tolist() if number not in self.ends]
        text = self.tokenizer.decode(kept, skip_special_tokens=False)
        return Spoken(text.strip(), score, len(kept), not closed and len(said) >= max_new_tokens)

    def ids(self, look: Look, prompt: str) -> Tensor:
        """A question through the chat template, (tokens,), the picture laid out as its family does.

        Raises CheckpointError when the template writes no picture.
        """
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        image = str(self.tokenizer.convert_ids_to_tokens(self.model.config.image_token_id))
        before, written, after = text.partition(self.rule.written if self.rule.written in text else image)
        if not written:
            raise CheckpointError(f"{self.tokenizer.name_or_path}: its chat template writes no {self.rule.written}")
        start, end = self.rule.around
        return torch.tensor(encode(self.tokenizer, f"{before}{start}{self.rule.text(look.held)}{end}{after}"))


def seen_size(pixels: Mapping[str, Tensor], config: Any, size: Size) -> Size:
    """The size (h, w) at which a model sees a picture; its own where the family counts no pixels."""
    if "image_grid_thw" not in pixels:
        return size
    _, down, across = pixels["image_grid_thw"][0].tolist()
    patch = int(config.vision_config.patch_size)
    return int(down) * patch, int(across) * patch


def _parameters(model: Any) -> set[str]:
    return set(inspect.signature(model.forward).parameters)
