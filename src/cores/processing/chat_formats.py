"""A tokenizer's chat template as a format of ours, compared id by id with the template before it is given out."""

import json
from dataclasses import replace
from pathlib import Path

from PIL import Image
from transformers import PreTrainedTokenizerBase

from cores.checkpoint_errors import checkpoint_errors
from cores.errors import CheckpointError
from cores.processing.language_pixels import PixelRule
from cores.processing.tokens import encode, encode_conversation, encode_prompt
from cores.prompts.chat import QUESTIONS, SYSTEM, Messages, assemble, chat_parts
from cores.prompts.prompt import Piece
from cores.prompts.wording import Format
from cores.vocabulary import IMAGE, IMAGE_PLACE

FILES = ("chat_template.jinja", "chat_template.json")  # beside a multimodal model's tokenizer, which may not read them


def take_chat_template(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Give a tokenizer the chat template of its model's folder, where it has none of its own."""
    found = [folder / name for name in FILES if (folder / name).is_file()]
    if tokenizer.chat_template is None and found:
        with checkpoint_errors(found[0], "be read as a chat template"):
            text = found[0].read_text("utf-8")
            tokenizer.chat_template = json.loads(text)["chat_template"] if found[0].suffix == ".json" else text


def chat_format(tokenizer: PreTrainedTokenizerBase, rule: PixelRule) -> Format:
    """The parts of a tokenizer's chat template, with the picture as `rule` lays it out.

    Raises CheckpointError when there is no template, it cannot be cut, or the parts get other ids than the whole.
    """
    if tokenizer.chat_template is None:
        raise CheckpointError("the tokenizer has no chat template: choose another prompt.format than chat")

    def render(messages: Messages, asking: bool) -> str:
        asked = {"add_generation_prompt": asking, "enable_thinking": False}
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **asked))

    marks = tokenizer.get_added_vocab()
    bos = tokenizer.bos_token or ""
    parts = chat_parts(render, rule.written, rule.around, bos, marks)
    begins = bool(bos) and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
    parts = replace(parts, begins=begins)
    for system in (SYSTEM, ""):
        _prove(tokenizer, rule, parts, system)
    return parts


def _prove(tokenizer: PreTrainedTokenizerBase, rule: PixelRule, parts: Format, system: str) -> None:
    """A prefix and a conversation must have the ids of the whole text, on a small grey picture."""
    pixels = rule(Image.new("RGB", (64, 48), (128, 128, 128)))
    seen = rule.text(pixels)
    if not seen:
        return  # a placeholder that no text stands for
    whole = assemble(parts, len(QUESTIONS), system, True)
    prefix = whole[: whole.index(QUESTIONS[0]) - len(parts.between)]
    behind = parts.picture.partition(IMAGE)[2] or rule.last
    before = encode_prompt(tokenizer, [Piece(prefix, False)], parts.begins).ids
    place = before.index(IMAGE_PLACE)
    ours = [*before[:place], *rule.layout(pixels), *before[place + 1 :]]
    ours += encode_conversation(tokenizer, [Piece(whole[len(prefix) :], False)], behind).ids
    bos = tokenizer.bos_token
    first = [tokenizer.bos_token_id] if parts.begins and not whole.startswith(bos) else []
    if ours != [*first, *encode(tokenizer, whole.replace(IMAGE, seen))]:
        raise CheckpointError(
            "the tokenizer joins the picture's tokens to the text around them, so that a prompt cannot go on behind "
            "the picture; choose another prompt.format than chat"
        )
