"""Questions about a picture to whoever answers with masks, and the answers as plain values."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from threading import RLock
from typing import Any, Generic, Unpack, cast, overload

from transformers import PreTrainedTokenizerBase

from cores.asking.answerer import Answerer, I, Query
from cores.asking.answers import Answered, passes
from cores.data.sample import Form
from cores.errors import UserError
from cores.inference.chat import Chat, Remember
from cores.inference.drawing import DRAWING, Draws
from cores.inference.following import Following, Hear, check_queries, result_of, worded
from cores.inference.options import How, HowDrawn, Options
from cores.inference.picturelike import Picturelike, as_picture
from cores.inference.segmentation import Segmentation
from cores.inference.streaming import Pieces

PICTURES_AT_ONCE = 16  # of a batch, whose features stand in memory together: 0.02 GB each for SAM 2 in 32 bits

Told = Callable[[Query, Answered], None]


class Lock:
    """A lock of the thread that holds it. Copies and pickles get one of their own."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["Lock"], tuple[()]]:
        return Lock, ()


class Segmenting(ABC, Generic[I]):
    """`segment`, `segment_batch`, `encode`, `ask` and their streams, whoever answers.

    Any number of threads may ask: one of them has the model at a time (`lock`), a whole call, or of a stream a token.
    Each gets what it would get alone. Questions that come together are faster as one `segment_batch`.
    """

    def __init__(self) -> None:
        self.lock = Lock()

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What reads the queries."""

    @abstractmethod
    def _asker(self, options: Options) -> Answerer[I]:
        """Who answers. Raises UserError for options that it cannot be asked with."""

    @overload
    def segment(
        self,
        image: Picturelike,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
        **how: Unpack[How],
    ) -> list[Segmentation]: ...

    @overload
    def segment(
        self,
        image: Picturelike,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
        **how: Unpack[HowDrawn],
    ) -> list[list[Segmentation]]: ...

    def segment(
        self,
        image: Picturelike,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
        **how: Any,
    ) -> list[Segmentation] | list[list[Segmentation]]:
        """`encode` and `ask` in one: the answers to all queries about a picture, in their order.

        They find the picture again (`Segmentation.picture`) as long as its file, or the object, is there. Args, and
        what `samples` changes, as `ask`. Raises UserError and DataError as both do; for queries and numbers before the
        picture is read.
        """
        draws = Draws.of(how)
        if draws is None:
            return self.segment_batch([image], [queries], form, max_new_tokens, **cast(How, how))[0]
        check_queries(queries)
        following = self._drawing(form, max_new_tokens, how)
        picture = as_picture(image)
        with self.lock:
            (encoded,) = following.asker.encode_images([picture])
            found = following.drawn(encoded, queries, draws)
        return [[answer.about(image) for answer in own] for own in found]

    def segment_batch(
        self,
        images: Sequence[Picturelike],
        queries: Sequence[Sequence[str]],
        form: Form | None = None,
        max_new_tokens: int | None = None,
        hear: Hear | None = None,
        **how: Unpack[How],
    ) -> list[list[Segmentation]]:
        """`segment` for several pictures, each with its own queries (none is allowed): answers in the same lists.

        Pictures and questions are worked on together, which is faster than one after the other and says the same;
        masks differ by rounding.

        Args:
            hear: is told, after each pass of the language model, the numbers of a picture and a query and the words
                said since the last time, which may be none; False cuts this answer, and no other, at its next token.
                It is told from within the model's lock: a slow one holds up everybody.

        The others as `ask`. Raises as `segment` does, and UserError when there are not as many lists of queries as
        pictures; for queries and numbers before a picture is read.
        """
        if len(images) != len(queries):
            raise UserError(f"queries: found {len(queries)} lists for {len(images)} pictures, expected one a picture")
        for own in queries:
            check_queries(own)
        options = Options.of(form, max_new_tokens, how)
        asker, found = self._asker(options), []
        following = Following(asker, options, options.limit(), hear)
        for some in passes(len(images), PICTURES_AT_ONCE):
            pictures = [as_picture(image) for image in images[some]]
            with self.lock:
                following.first = some.start
                found += following.asked(asker.encode_images(pictures), queries[some])
        return [[answer.about(image) for answer in own] for image, own in zip(images, found, strict=True)]

    def check(self, queries: Sequence[str], form: Form | None = None) -> None:
        """Raises as `ask` does for queries that cannot be asked, whatever the picture."""
        asker = self._asker(Options())
        for query, its in worded(queries, form):
            asker.check(query, its)

    def encode(self, image: Picturelike) -> I:
        """Look at a picture once.

        Takes a path, a Pillow image, an array (H, W, 3) or (H, W) of uint8, and a picture file as bytes or as an open
        binary file. Raises DataError when it is missing or no picture; UserError for anything else, such as a URL.
        """
        return self.encode_batch([image])[0]

    def encode_batch(self, images: Sequence[Picturelike]) -> list[I]:
        """`encode` for several pictures, in their order."""
        pictures = [as_picture(image) for image in images]
        with self.lock:
            return self._asker(Options()).encode_images(pictures)

    @overload
    def ask(
        self,
        encoded: I,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
        **how: Unpack[How],
    ) -> list[Segmentation]: ...

    @overload
    def ask(
        self,
        encoded: I,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
        **how: Unpack[HowDrawn],
    ) -> list[list[Segmentation]]: ...

    def ask(
        self,
        encoded: I,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
        **how: Any,
    ) -> list[Segmentation] | list[list[Segmentation]]:
        """The answers to all queries about an encoded picture, in their order.

        With `samples`, a list of so many answers to each query, drawn by chance, the likeliest (`Segmentation.score`)
        first; `vote` joins their masks.

        Args:
            form: how the queries are put into words (see `Turn.form`): `phrase` for a name ("red kettle"), `sentence`
                for a whole question or request, `explain` for one that also wants the reason, `raw` for text as it
                is. None tells phrases from sentences by themselves (`form_of`).
            max_new_tokens: most tokens of an answer; None: the checkpoint's own.
            how: see `How`, and `HowDrawn` with `samples`.

        Raises UserError for an empty query, an unknown form, less than one token, and for draws from a chain that is
        constrained or in words; DataError for a query that holds the picture's own marks.
        """
        check_queries(queries)
        draws = Draws.of(how)
        if draws is not None:
            following = self._drawing(form, max_new_tokens, how)
            with self.lock:
                return following.drawn(encoded, queries, draws)
        options = Options.of(form, max_new_tokens, cast(How, how))
        return self.ask_batch([encoded], [queries], options)[0]

    def ask_batch(
        self,
        encoded: Sequence[I],
        queries: Sequence[Sequence[str]],
        options: Options | None = None,
        hear: Hear | None = None,
    ) -> list[list[Segmentation]]:
        """`ask` for several encoded pictures, each with its own queries: answers in the same lists.

        Args: `options`: how all of them are asked; `hear` as in `segment_batch`. Raises as `ask`.
        """
        options = options or Options()
        following = Following(self._asker(options), options, options.limit(), hear)
        with self.lock:
            return following.asked(encoded, queries)

    def stream(
        self,
        image: Picturelike,
        query: str,
        form: Form | None = None,
        max_new_tokens: int | None = None,
        **how: Unpack[How],
    ) -> Generator[str | Segmentation, None, None]:
        """`encode` and `ask_stream` in one, about one query. Args, and what it raises, as `segment`."""
        options = Options.of(form, max_new_tokens, how)
        limit = options.limit()
        self._asker(options)  # what is wrong with a number is said before the picture is looked at
        check_queries([query])
        return self._stream(self.encode(image), query, options, limit, image=image)

    def ask_stream(
        self,
        encoded: I,
        query: str,
        form: Form | None = None,
        max_new_tokens: int | None = None,
        told: Told | None = None,
        image: Picturelike | None = None,
        **how: Unpack[How],
    ) -> Generator[str | Segmentation, None, None]:
        """The answer to one query as it comes: its text in pieces, and last the finished `Segmentation`.

        The pieces, joined, are the `answer`, and what comes last is what `ask` gives. Closing the generator ends the
        work at the next token. The model is free for others between two pieces.

        Args:
            told: is given the question as it was put, and the whole answer, before the last pieces come.
            image: the picture, which the answer finds again.

        The others, and what it raises, as `ask`.
        """
        options = Options.of(form, max_new_tokens, how)
        return self._stream(encoded, query, options, options.limit(), told, image)

    def chat(self, image: Picturelike, remember: Remember = "picture") -> Chat[I]:
        """A talk about a picture, which is looked at once. Args as `Chat`; raises as that and `encode` do."""
        if remember == "conversation":
            self.check_conversation()
        return Chat(self, self.talk_about(self.encode(image)), remember, image)

    def talk_about(self, encoded: I) -> I:
        """The picture for a talk; here, itself."""
        return encoded

    def check_conversation(self) -> None:
        """Raises UserError where a question cannot stand behind others."""
        raise UserError("remember: a chain in words has no conversations: take remember='picture'")

    def behind(self, encoded: I, asked: Query, answer: Answered) -> I:
        """The picture with a question and its answer behind it, before the next question."""
        raise NotImplementedError

    def _drawing(self, form: Form | None, max_new_tokens: int | None, how: Mapping[str, Any]) -> Following:
        """Who draws answers. Raises UserError where none are drawn."""
        rest = {name: value for name, value in how.items() if name not in DRAWING}
        options = Options.of(form, max_new_tokens, cast(How, rest))
        if options.chain != "free":
            raise UserError(f"samples: a {options.chain} answer is not drawn: leave samples out, or chain")
        return Following(self._asker(options), options, options.limit())

    def _stream(
        self,
        encoded: I,
        query: str,
        options: Options,
        limit: Callable[[], bool] | None,
        told: Told | None = None,
        image: Picturelike | None = None,
    ) -> Generator[str | Segmentation, None, None]:
        asker = self._asker(options)
        following = Following(asker, options, limit)
        (asked,) = following.worded([query])
        return self._streamed(following, encoded, query, asked, told, image)

    def _streamed(
        self,
        following: Following,
        encoded: I,
        query: str,
        asked: Query,
        told: Told | None,
        image: Picturelike | None,
    ) -> Generator[str | Segmentation, None, None]:
        asker, pieces = following.asker, Pieces()
        steps = asker.stream(encoded, asked, following.follow)
        while True:
            with self.lock:
                try:
                    piece = pieces.more(asker.text_of(next(steps)))
                except StopIteration as end:
                    found = result_of(asker, encoded, query, end.value, following.options)
                    if told is not None:
                        told(asked, end.value)
                    break
            if piece:
                yield piece
        if piece := pieces.rest(found.answer):
            yield piece
        yield found if image is None else found.about(image)
