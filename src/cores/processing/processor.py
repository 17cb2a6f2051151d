"""Pictures and words to a batch, and answers back to words. Knows sizes and tokens, no weights.

Legend: images = rows of a batch, tokens = ids of a text, s, S = sides of the squares that the language model's tower
and the segmenter look at.
"""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from huggingface_hub import HfApi
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cores.data.sample import Conversation, Form, Raster, Sample, Target, Turn
from cores.errors import DataError, UserError
from cores.geometry import content_size
from cores.processing.answer_templates import AnswerTemplates
from cores.processing.batch import Asked, Batch, Row, fit, make_batch
from cores.processing.chat_formats import chat_format
from cores.processing.language_pixels import pixel_rule, read_image_processor
from cores.processing.pixels import Picture, key_of, open_picture
from cores.processing.reading import Reading, read_answer
from cores.processing.scaling import size_of
from cores.processing.segmenter_pixels import for_segmenter
from cores.processing.stored import SQUARE, ProcessorSizes, fetch_processor, read_processor, write_processor
from cores.processing.tokens import Tokens, encode_conversation, encode_prompt, find_ids
from cores.prompts import Prompt, PromptSettings
from cores.prompts.prompt import Piece
from cores.prompts.wording import CHAT, wording
from cores.vocabulary import IM_END, IM_START, IMAGE, IMAGE_PLACE, UNSUPERVISED

log = logging.getLogger(__name__)
Mode = Literal["train", "val"]


class CoresProcessor:
    """What stands between samples and a model, and between a model's ids and words. Saved with its checkpoint.

    `prompt`: how the model is spoken to, `sizes`: how pictures are seen (assign to change them); `rule`: what follows
    from the sizes for the language model's pictures; `token_ids`: the levels', coarse to fine; `closing`: the ids that
    end an answer; `dropped`: conversations that training left out or cut, by reason.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: PromptSettings | Prompt,
        sizes: ProcessorSizes,
        image_processor: Any = None,
    ) -> None:
        """`image_processor`: the family's, where `sizes` name one (`language_pixels.load_image_processor`).

        Raises CheckpointError when the tokenizer lacks a level's token or the picture's marks, or its chat template
        is asked for and cannot be used.
        """
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.dropped: Counter[str] = Counter()
        self.sizes = sizes
        self._set(prompt if isinstance(prompt, Prompt) else self._written(prompt))

    @property
    def sizes(self) -> ProcessorSizes:
        """In pixels and tokens; assign to change them. Raises CheckpointError when the tokenizer does not fit them."""
        return self._sizes

    @sizes.setter
    def sizes(self, sizes: ProcessorSizes) -> None:
        self._sizes = sizes
        self.rule = pixel_rule(sizes, self.tokenizer, self.image_processor)

    @property
    def prompt(self) -> PromptSettings:
        """How the model is spoken to; assign to change it. Raises CheckpointError when the tokenizer lacks a token."""
        return self.writer.settings

    @prompt.setter
    def prompt(self, settings: PromptSettings) -> None:
        same = (settings.format, settings.levels) == (self.prompt.format, self.prompt.levels)
        self._set(Prompt(settings, self.writer.words) if same else self._written(settings))

    def _written(self, settings: PromptSettings) -> Prompt:
        if settings.format != CHAT:
            return Prompt(settings)
        return Prompt(settings, wording(CHAT, len(settings.level_names), chat_format(self.tokenizer, self.rule)))

    def _set(self, writer: Prompt) -> None:
        picture = writer.words.format.picture
        find_ids(self.tokenizer, [mark for mark in (IM_START, IM_END) if mark in picture])
        self._behind = picture.partition(IMAGE)[2] or self.rule.last  # what a prefix ends with
        self.token_ids = find_ids(self.tokenizer, writer.settings.level_tokens)
        self.writer = writer
        self.closing = self._closing()
        self._answer_templates: AnswerTemplates | None = None  # of this prompt, made when they are needed

    @property
    def answer_templates(self) -> AnswerTemplates:
        """Ids of all answers that the prompt teaches."""
        if self._answer_templates is None:
            self._answer_templates = AnswerTemplates.of(self)
        return self._answer_templates

    def _closing(self) -> list[int]:
        """What ends an answer: the end token where the format has it, else the ids that its closing text adds."""
        end = self.tokenizer.eos_token_id
        if end is not None and end in self._answer("a."):
            return [int(end)]
        with_it, without = (
            encode_conversation(self.tokenizer, [Piece(text, True)], self._behind).ids
            for text in (f" a.{self.writer.closing}", " a.")
        )
        return with_it[len(without) :]

    # -- one picture, for asking -----------------------------------------------------------------------------------

    def picture(self, image: Path | str | Image.Image | Raster, unseen: bool = False, keyed: bool = True) -> Picture:
        """A picture for both; `unseen`: not for the segmenter; `keyed` False: without its key, which takes time.

        Raises DataError when it cannot be read. A raster has no key.
        """
        opened = image if isinstance(image, Raster) else open_picture(image)
        pixels, resized = for_segmenter(opened, self.sizes.segmenter_image_size, self.sizes.segmenter, unseen)
        seen = self.rule(opened)
        layout = tuple(self.rule.layout(seen))
        key = key_of(opened) if keyed and not isinstance(opened, Raster) else ""
        return Picture(seen, layout, pixels, size_of(opened), resized, key)

    def language_pixels(
        self, pictures: Sequence[Picture], device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """`pixel_values` of pictures and what goes with them, for the language model; `dtype`: of floating ones."""
        return {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in self.rule.batch([picture.pixels for picture in pictures]).items()
        }

    def prefix(self, seed: int = 0, key: str = "", picture: Picture | None = None) -> Tensor:
        """Ids (tokens,) of what stands before every question: system text, exemplars, picture.

        Exemplars that are drawn depend on the seed and the picture's key, never on the questions. `picture` may be
        left out where all pictures take the same places (`square`). Raises ValueError where it may not.
        """
        if picture is None and self.sizes.pixel_rule != SQUARE:
            raise ValueError(f"{self.sizes.pixel_rule} lays pictures out by their sizes: give the picture")
        layout = self.rule.layout({}) if picture is None else picture.layout
        return torch.tensor(self._prefix(_for_key(seed, key), layout))

    def question(self, query: str, form: Form = "sentence", follows: bool = False) -> Tensor:
        """Ids (tokens,) of a question, in its validation wording, up to where the answer begins.

        `follows`: as it stands behind the closed answer of an earlier turn, instead of the prefix.
        Raises UserError for an empty query and an unknown form, DataError for a query that holds the picture's marks.
        """
        if not query.strip():
            raise UserError(f"the query is empty ({query!r}): ask for something in words")
        if form not in get_args(Form):
            raise UserError(f"form: found {form!r:.40}, expected one of {', '.join(get_args(Form))}")
        asked = (self.writer.ask(query, form), None)
        if not follows:
            return torch.tensor(self._conversation([asked]).ids)
        turns = self._conversation([("?", "a."), asked])
        return torch.tensor(turns.ids[turns.ends[0] :])

    def answer_ids(self, answer: Turn | str | None = None) -> Tensor:
        """Ids (tokens,) of an answer, with what closes it, for teacher forcing.

        Args: `answer`: as it stands; of a turn, its validation answer, one chain a target, or its refusal; None, the
        validation answer with one chain.
        """
        if isinstance(answer, Turn):
            answer = self.writer.exchange(answer.query, answer.form, answer.answer, _phrases(answer)).answer
        return torch.tensor(self._answer(self.writer.answer([None]) if answer is None else answer))

    def parse_answer(self, ids: Sequence[int] | Tensor) -> Reading:
        """What an answer says: its text, its status, and the words that name each target."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        return read_answer(self.tokenizer, self.writer, numbers, self.token_ids)

    # -- many pictures, for training -------------------------------------------------------------------------------

    def collate(
        self,
        samples: Sequence[Sample],
        seed: int,
        epoch: int,
        indices: Sequence[int],
        mode: Mode = "train",
        unseen: Collection[int] = (),
        mask_size: int | None = None,
    ) -> Batch:
        """The batch of these samples, as `CoresModel.forward` takes it.

        `train` draws exemplars and wordings: those of a sample are a function of (seed, epoch, its index), whatever
        else is in the batch. A conversation that `max_text_tokens` has no room for is left out or cut (`fit`), and
        counted in `dropped`. `val` takes the validation wordings and cuts nothing. `unseen`: numbers of the samples
        that are left out of `segmenter_pixels`, since their features are known. `mask_size`: side of the low-res masks
        at which the losses are taken, if they are: then the truth is made at their size.

        Raises DataError when a picture cannot be read, is of another size than its masks, or an answer's chains do
        not go with its targets.
        """
        keyed = mode != "train"  # in training nothing is drawn by a picture's key
        opened = [sample.raster or sample.image for sample in samples]
        pictures = [self.picture(image, number in unseen, keyed) for number, image in enumerate(opened)]
        rows = []
        for sample, picture, index in zip(samples, pictures, indices, strict=True):
            rng = Random(f"{seed} {epoch} {index}") if mode == "train" else None
            try:
                rows.append(self._row(sample, picture, rng, seed))
            except DataError as error:
                raise DataError(f"{sample.name}: {error}") from None
        canvas = self.sizes.segmenter_image_size
        cells = [None if mask_size is None else content_size(one.resized, canvas, mask_size) for one in pictures]
        pad = self.tokenizer.pad_token_id or 0
        return make_batch(rows, pictures, samples, self.language_pixels(pictures), int(pad), cells)

    def _row(self, sample: Sample, picture: Picture, rng: Random | None, seed: int) -> Row:
        if sample.size != picture.size:
            raise DataError(f"the picture is {picture.size} (h, w) after EXIF rotation, its masks are {sample.size}")
        prefix = self._prefix(rng or _for_key(seed, picture.key), picture.layout)
        kept = [asked for one in sample.conversations if (asked := self._ask(one, rng)) is not None]
        if rng is not None:
            room = self.sizes.max_text_tokens - (len(prefix) - len(picture.layout) + 1)
            fitting = [fit(asked, room, self.token_ids) for asked in kept]
            for before, after in zip(kept, fitting, strict=True):
                if after is not before:
                    self.dropped["left out" if after is None else "cut"] += 1
                    log.info("max_text_tokens %d: a conversation is too long", self.sizes.max_text_tokens)
            kept = [asked for asked in fitting if asked is not None]
        return Row.of(prefix, kept, self.token_ids)

    def _ask(self, conversation: Conversation, rng: Random | None) -> Asked | None:
        """A conversation in words and tokens, None when it has no turns."""
        turns: list[tuple[str, str | None]] = []
        targets: list[Target | None] = []
        for turn in conversation.turns:
            told = self.writer.exchange(turn.query, turn.form, turn.answer, _phrases(turn), rng)
            turns.append((told.question, told.answer))
            targets += turn.targets or [None] * told.chains
        if not turns:
            return None
        return Asked(self._conversation(turns), tuple(targets))

    def _prefix(self, rng: Random, layout: Sequence[int]) -> list[int]:
        pieces = [Piece(self.writer.prefix(rng), False)]
        ids = encode_prompt(self.tokenizer, pieces, self.writer.words.format.begins).ids
        place = ids.index(IMAGE_PLACE)
        return [*ids[:place], *layout, *ids[place + 1 :]]

    def _conversation(self, turns: Sequence[tuple[str, str | None]]) -> Tokens:
        tokens = encode_conversation(self.tokenizer, self.writer.conversation(turns), self._behind)
        if self.sizes.image_token_id in tokens.ids:
            raise DataError(f"{turns[0][0]!r} or its answer holds the token of a picture's place: leave it out")
        return tokens

    def _answer(self, text: str) -> list[int]:
        return [label for label in self._conversation([("?", text)]).labels if label != UNSUPERVISED]

    # -- files -----------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer, sizes, image processor and prompt into a folder; `from_pretrained` reads them back."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.writer.save(folder)
        self.rule.save(folder)
        write_processor(folder, self.tokenizer, self.sizes, self.writer.answer([None]))

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool | None = None,
        _from_auto: bool = False,
    ) -> "CoresProcessor":
        """From a model folder or a hub id. The last two are AutoProcessor's and say nothing: no code is remote.

        Raises CheckpointError when a file is missing or has unknown fields, or when the tokenizer gives other ids
        than it did when it was saved.
        """
        folder = Path(name)
        if not folder.is_dir():
            where = {"revision": revision, "cache_dir": cache_dir, "token": token}
            folder = fetch_processor(str(name), local_files_only=local_files_only, **where)
        tokenizer, sizes = read_processor(folder)
        images = None if sizes.pixel_rule == SQUARE else read_image_processor(folder, sizes.pixel_rule)
        return cls(tokenizer, Prompt.load(folder), sizes, images)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
    ) -> str:
        """Put what `save_pretrained` writes into a hub's repository, made if need be. Gives its address."""
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            message = "Upload processor"
            api.upload_folder(repo_id=repo.repo_id, folder_path=folder, revision=revision, commit_message=message)
        return str(repo)


def _phrases(turn: Turn) -> list[str | None]:
    return [target.phrase for target in turn.targets]


def _for_key(seed: int, key: str) -> Random:
    return Random(f"{seed} {key}")
