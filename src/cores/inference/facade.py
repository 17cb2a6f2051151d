"""`cores.load(...).segment(picture, queries)`: a picture is encoded once and asked as often as one likes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cores.asking.answers import Answered
from cores.asking.asker import QUESTIONS_PER_PASS, Asker, EncodedImage
from cores.checkpoints.load import load as load_checkpoint
from cores.data.sample import Form
from cores.errors import UserError
from cores.inference.picturelike import Picturelike, as_picture
from cores.inference.segmentation import Level, Segmentation, TargetMask
from cores.masks import encode
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor
from cores.prompts.forms import form_of


class Cores:
    """A model with its processor, ready to be asked. It can be pickled, weights and all, and so can its answers.

    Args:
        seed: for in-context exemplars drawn at random, where the checkpoint was trained with such; an answer depends
            on the seed, the picture and the query, never on the other queries.
        questions_per_pass: most questions that are worked on at once: bounds the memory, changes no answer.

    Pickling raises UserError for a model with LoRA layers.
    """

    def __init__(
        self,
        model: CoresModel,
        processor: CoresProcessor,
        seed: int = 0,
        questions_per_pass: int = QUESTIONS_PER_PASS,
    ) -> None:
        self.model, self.processor, self.seed = model.eval(), processor, seed
        self.questions_per_pass = questions_per_pass

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"Cores({millions:.1f} million parameters, {self.model.dtype} on {self.model.device})"

    def __getstate__(self) -> dict[str, Any]:
        """The model as config and weights: transformers hangs hooks on its modules that cannot be pickled."""
        weights = self.model.state_dict()
        if any(".lora_" in name for name in weights):
            raise UserError("a Cores whose model has LoRA layers cannot be pickled: merge them first (`cores merge`)")
        state = {**vars(self), "config": self.model.config, "weights": weights, "device": self.model.device}
        return {**state, "model": None, "max_new_tokens": self.model.max_new_tokens}

    def __setstate__(self, state: dict[str, Any]) -> None:
        model = CoresModel(state.pop("config"))
        model.load_state_dict(state.pop("weights"), assign=True)
        model.max_new_tokens = state.pop("max_new_tokens")
        vars(self).update(state, model=model.to(state.pop("device")).eval())

    def segment(
        self,
        image: Picturelike,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
    ) -> list[Segmentation]:
        """`encode` and `ask` in one: the answers to all queries about a picture, in their order.

        Args as `ask`. Raises UserError and DataError as both do; for queries and numbers before the picture is read.
        """
        _check(queries)
        self._asker(max_new_tokens)  # what is wrong with a number is said before the picture is looked at
        return self.ask(self.encode(image), queries, form, max_new_tokens)

    def encode(self, image: Picturelike) -> EncodedImage:
        """Look at a picture once.

        Takes a path, a Pillow image, an array (H, W, 3) or (H, W) of uint8, and a picture file as bytes or as an open
        binary file. Raises DataError when it is missing or no picture; UserError for anything else, such as a URL.
        """
        return self._asker().encode_image(as_picture(image))

    def ask(
        self,
        encoded: EncodedImage,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
    ) -> list[Segmentation]:
        """The answers to all queries about an encoded picture, in their order.

        Args:
            form: how the queries are put into words (see `Turn.form`): `phrase` for a name ("red kettle"), `sentence`
                for a whole question or request, `explain` for one that also wants the reason, `raw` for text as it
                is. None tells phrases from sentences by themselves (`form_of`).
            max_new_tokens: most tokens of an answer; None: the checkpoint's own.

        Raises UserError for an empty query, an unknown form, and less than one token; DataError for a query that holds
        the picture's own marks.
        """
        _check(queries)
        asker = self._asker(max_new_tokens)
        worded = [(query, form_of(query) if form is None else form) for query in queries]
        answered = asker.generate(encoded, worded)
        return [self._result(asker, encoded, *pair) for pair in zip(queries, answered, strict=True)]

    def _asker(self, max_new_tokens: int | None = None) -> Asker:
        return Asker(self.model, self.processor, self.seed, max_new_tokens, self.questions_per_pass)

    def _result(self, asker: Asker, encoded: EncodedImage, query: str, answer: Answered) -> Segmentation:
        """One answer as plain values; large masks are made one at a time and kept as run lengths."""
        reading = self.processor.parse_answer(answer.ids)
        names = [level["name"] for level in self.model.config.levels]
        segmenter, resized = self.model.segmenter, encoded.picture.resized
        frame = (segmenter.image_size, resized, segmenter.fit)
        targets = []
        for i, (phrase, chain) in enumerate(zip(reading.phrases, answer.chains, strict=True)):
            levels = []
            for name, logits, position in zip(names, answer.low_res_logits, chain, strict=True):
                if position is not None:
                    (full,) = asker.full_size(encoded, logits[i : i + 1])
                    low_res = logits[i].float().cpu().numpy()
                    levels.append(Level(name, encode(full.mask), full.score, low_res, *frame))
            targets.append(TargetMask(phrase or query, tuple(levels), named=phrase is not None))
        return Segmentation(
            query=query,
            answer=reading.text,
            text=reading.plain,
            status=reading.status,
            size=encoded.size,
            targets=tuple(targets),
            score=answer.score,
            tokens=len(answer.ids),
            cut=answer.cut,
        )


def load(
    path: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
) -> Cores:
    """A model to ask, from a model folder, a run folder or a hub id; without a path, the one that comes with cores.

    The model that comes with cores is tiny and knows drawn scenes, not photographs.

    Args:
        device: where it runs; None takes CUDA where there is one, else the CPU.
        dtype: of the weights, such as "bfloat16"; None: the checkpoint's own on CUDA, float32 on the CPU.

    Raises CheckpointError when the folder is missing or its weights, tokens and config do not fit each other, and
    UserError for a device that is not there.
    """
    model, processor = load_checkpoint(path, device, dtype)
    return Cores(model, processor, seed)


def _check(queries: Sequence[str]) -> None:
    if isinstance(queries, str):
        raise UserError(f"queries: found one string, expected a list of them: [{queries!r}]")
    for number, query in enumerate(queries):
        if not isinstance(query, str) or not query.strip():
            raise UserError(f"queries[{number}] is {query!r:.80}: ask for something in words")
