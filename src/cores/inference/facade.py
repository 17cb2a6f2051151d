"""`cores.load(...).segment(picture, queries)`: a picture is encoded once and asked as often as one likes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from cores.asking.answerer import Query
from cores.asking.answers import Answered
from cores.asking.asker import QUESTIONS_PER_PASS, Asker, DraftsFrom
from cores.asking.confidence import Confidence
from cores.asking.drafts import Drafts
from cores.asking.image_encoding import EncodedImage
from cores.asking.prefixes import Prefixes
from cores.asking.similarity import SimilarityMap
from cores.checkpoints.find import find
from cores.checkpoints.load import load as load_checkpoint
from cores.data.sample import Form
from cores.errors import UserError
from cores.inference.following import worded
from cores.inference.options import Options
from cores.inference.segmenting import Segmenting
from cores.modeling.model import CoresModel
from cores.modeling.quantizing import Bits
from cores.processing.processor import CoresProcessor
from cores.words.chain import Seen, WordsChain
from cores.words.load import is_words, load_words


class Cores(Segmenting[EncodedImage]):
    """A model with its processor, ready to be asked, by one thread or many (see `Segmenting`).

    It can be pickled, weights and all, and so can its answers. Two of them must not share a model: each has its lock.

    Args:
        seed: for in-context exemplars drawn at random, where the checkpoint was trained with such; an answer depends
            on the seed, the picture and the query, never on the other queries.
        questions_per_pass: most questions that are worked on at once: bounds the memory, changes no answer.
        confidence: how sure answers are, by their signals; None: without a fit.
        drafts: what answers are guessed from, to be said in fewer passes: `call`, what is said in the same call, and
            in a talk what was said in all talks of this model; `run`, all that it said; `off` says a token a pass
            (see `Asker`).

    Pickling raises UserError for a model with LoRA layers.
    """

    def __init__(
        self,
        model: CoresModel,
        processor: CoresProcessor,
        seed: int = 0,
        questions_per_pass: int = QUESTIONS_PER_PASS,
        drafts: DraftsFrom = "call",
        confidence: Confidence | None = None,
    ) -> None:
        super().__init__()
        self.model, self.processor, self.seed = model.eval(), processor, seed
        self.confidence = confidence or Confidence()
        self.questions_per_pass, self.drafts = questions_per_pass, drafts
        self.prefixes = Prefixes()
        self._said: Drafts | None = None  # made when it is needed

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

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's own."""
        return self.processor.tokenizer

    def _asker(self, options: Options) -> Asker:
        drafts = self._learned() if self.drafts == "run" else self.drafts
        how = (self.seed, options.max_new_tokens, self.questions_per_pass, self.prefixes, drafts, options.chain)
        asked: dict[str, Any] = {"refine": options.refine, "think": options.think}
        return Asker(self.model, self.processor, *how, **asked, confidence=self.confidence)

    def talk_about(self, encoded: EncodedImage) -> EncodedImage:
        """The picture for a talk: see `Asker.talk_about`. A model says much the same in all its talks."""
        return self._asker(Options()).talk_about(encoded, self._learned())

    def _learned(self) -> Drafts:
        """What this model was heard to say."""
        if self._said is None:
            self._said = Drafts.of(self.processor)
        return self._said

    def check_conversation(self) -> None:
        """Nothing: questions may stand behind others."""

    def behind(self, encoded: EncodedImage, asked: Query, answer: Answered) -> EncodedImage:
        """The picture with a question and its answer behind it, before the next question."""
        return self._asker(Options()).behind(encoded, asked, answer)

    def similarity(
        self,
        encoded: EncodedImage,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
    ) -> list[list[dict[str, SimilarityMap]]]:
        """How like the answers' grounding tokens are to the picture's patches: of each query and target, by level.

        Cosine similarity of a token's state with each patch's in the language model's last layer
        (`SimilarityMap.at_size` has the picture's size, `viz.heat` draws it). Args and errors as `ask`; UserError for
        a language model that does not see a picture as one square of patches, too.
        """
        asker = self._asker(Options(max_new_tokens=max_new_tokens))
        with self.lock:
            answers = asker.generate(encoded, worded(queries, form))
            return [asker.similarity(encoded, answer) for answer in answers]


class CoresInWords(Segmenting[Seen]):
    """A chain in words (docs/words.md), asked as a `Cores` is. `chain`: its models and its settings."""

    def __init__(self, chain: WordsChain) -> None:
        super().__init__()
        self.chain = chain

    def __repr__(self) -> str:
        return f"CoresInWords({self.chain!r})"

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The language model's own."""
        return self.chain.speaker.tokenizer

    def _asker(self, options: Options) -> WordsChain:
        if options.refine or options.think or options.chain != "free":
            raise UserError("refine, think and chain: a chain in words has no tokens to do that with: leave them out")
        most = options.max_new_tokens
        return self.chain if most is None else self.chain.saying(most)


def load(
    path: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    quantize: Bits | None = None,
) -> Cores | CoresInWords:
    """A model to ask; without a path, the one that comes with cores: tiny, it knows drawn scenes, not photographs.

    Args:
        path: a model folder, a run folder, a hub id (`owner/name` or `owner/name@revision`), or a CoReS or LISA as
            its own program wrote it, such as `xinlai/LISA-7B-v1`: it is converted once, into the cache (`as_ours`).
            `words:MLLM+SEGMENTER`, or a YAML of `kind: words`, is a chain in words over models that were not trained
            for it (docs/words.md).
        device: where it runs; None and "auto" take CUDA where there is one, else MPS, else the CPU.
        dtype: of the weights, such as "bfloat16"; None and "auto": the checkpoint's own, but float32 on a CPU.
        quantize: "8bit" or "4bit": the language model's layers in so few bits, by bitsandbytes, on CUDA alone.

    Raises CheckpointError when the folder is missing or its weights, tokens and config do not fit each other;
    UserError for a device that is not there, and where few bits cannot be had; RecipeError for a name or a YAML that
    says no chain in words.
    """
    if is_words(path):
        return CoresInWords(load_words(str(path), device, dtype, seed, quantize))
    model, processor = load_checkpoint(path, device, dtype, quantize=quantize)
    return Cores(model, processor, seed, confidence=Confidence.load(find(path)))
