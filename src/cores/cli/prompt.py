"""`cores prompt`: the exact text and token ids of a question, as a model reads it."""

import argparse
import json
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

from cores.errors import UserError
from cores.prompts.forms import refuse_half_characters

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem
    from transformers import PreTrainedTokenizerBase

    from cores.prompts import Prompt

T = TypeVar("T")


def main(argv: list[str]) -> int:
    """Run `cores prompt`. Gives the exit code.

    Raises UserError for flags that do not go together, CheckpointError for a model that cannot be used.
    """
    from cores.prompts.styles import STYLE_NAMES

    parser = argparse.ArgumentParser(
        prog="cores prompt",
        description="Print the exact text and token ids of a question.",
        epilog="In the ids, -200 is the picture; labels are -100 where nothing is learned.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="model folder, run folder, hub id, or a LLaMA tokenizer.model (default: the model that comes with cores)",
    )
    parser.add_argument(
        "--style", choices=STYLE_NAMES, help="for a tokenizer.model (default: published); a model has its own"
    )
    parser.add_argument("--format", help="llava_v1, llava_llama_2, llava_v0 or plain, likewise (default: llava_v1)")
    parser.add_argument(
        "--mode",
        choices=("train", "val", "generate"),
        default="generate",
        help="with an answer in a wording of training or of validation, or up to where it begins (default: generate)",
    )
    parser.add_argument(
        "--query", required=True, help="the name of what is asked for, or with --sentence a whole request"
    )
    parser.add_argument("--answer", help="the answer, with {loc} and {seg} for the tokens (default: the usual one)")
    parser.add_argument("--sentence", action="store_true", help="it is a whole sentence (a model tells by itself)")
    parser.add_argument(
        "--seed", type=int, help="draw wordings and exemplars as training does (default: the first ones)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON: prompt, ids, labels")
    args = parser.parse_args(argv)
    if not args.query.strip():
        raise UserError("--query is empty: ask for something in words")
    for text in (args.query, args.answer or ""):
        refuse_half_characters(text)
    if args.mode == "generate" and args.answer is not None:
        raise UserError("--answer has no place in a prompt that ends where the answer begins: add --mode train or val")

    from cores.processing.tokens import encode_prompt  # torch comes with it

    tokenizer, prompt = _open(args)
    pieces = prompt.whole([_turn(args, prompt)], Random(args.seed or 0))
    tokens = encode_prompt(tokenizer, pieces, prompt.words.format.begins)
    text = "".join(piece.text for piece in pieces)
    _say_unknown_words(tokenizer, f"{args.query} {args.answer or ''}")
    if args.json:
        sys.stdout.write(json.dumps({"prompt": text, "ids": tokens.ids, "labels": tokens.labels}) + "\n")
        return 0
    sys.stdout.write(f"prompt:\n{text}\n\nids ({len(tokens.ids)}):\n{tokens.ids}\n")
    if args.mode != "generate":
        sys.stdout.write(f"\nlabels:\n{tokens.labels}\n")
    return 0


def _say_unknown_words(tokenizer: "PreTrainedTokenizerBase", text: str) -> None:
    from cores.processing.unknown_words import find_unknown_words

    unknown = find_unknown_words(tokenizer, [text])
    if unknown:
        sys.stderr.write(f"warning: {unknown}\n")


def _turn(args: argparse.Namespace, prompt: "Prompt") -> tuple[str, str | None]:
    """The question, after the picture's place, and its answer."""
    from cores.prompts.forms import form_of

    form = "sentence" if args.sentence or (_is_model(args) and form_of(args.query) == "sentence") else "phrase"
    if args.mode != "train":
        # the published programs have a blank more in validation, which their tokenizer drops
        blank = " " if args.mode == "val" and prompt.settings.style != "paper" else ""
        question = f"<image>{prompt.words.format.between}{blank}{prompt.ask(args.query, form)}"
        return question, None if args.mode == "generate" else prompt.fill(args.answer or prompt.answer([None]))
    rng = First() if args.seed is None else Random(args.seed)
    question = prompt.ask(args.query, form, rng)
    return f"<image>{prompt.words.format.between}{question}", prompt.fill(args.answer or prompt.answer([None], rng))


def _is_model(args: argparse.Namespace) -> bool:
    """A model, which is asked by the rule of `cores predict`; of a tokenizer.model alone the flags say everything."""
    return args.model is None or not Path(args.model).is_file()


class First(Random):
    """Draws whatever comes first."""

    def choice(self, seq: "SupportsLenAndGetItem[T]") -> T:
        """The first member."""
        return seq[0]


def _open(args: argparse.Namespace) -> "tuple[PreTrainedTokenizerBase, Prompt]":
    from cores.prompts import Prompt, PromptSettings

    if not _is_model(args):
        from cores.processing.legacy_tokenizer import read_legacy_tokenizer

        prompt = Prompt(PromptSettings(format=args.format or "llava_v1", style=args.style or "published"))
        return read_legacy_tokenizer(Path(args.model), prompt.settings.level_tokens), prompt

    from cores.checkpoints.find import find
    from cores.processing import CoresProcessor

    processor = CoresProcessor.from_pretrained(find(args.model))
    for name in ("style", "format"):
        wanted, found = getattr(args, name), getattr(processor.prompt, name)
        if wanted not in (None, found):
            raise UserError(f"--{name} {wanted}: this model was trained with {found}: leave the flag out")
    return processor.tokenizer, processor.writer
