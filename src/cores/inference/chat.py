"""A talk about one picture: question after question, over what was read of the picture once."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Generic, Literal, Unpack, get_args

from cores.asking.answerer import I, Query
from cores.asking.answers import Answered
from cores.data.sample import Form
from cores.errors import UserError
from cores.inference.options import How
from cores.inference.picturelike import Picturelike
from cores.inference.segmentation import Segmentation

if TYPE_CHECKING:
    from cores.inference.segmenting import Segmenting

Remember = Literal["picture", "conversation"]


class Chat(Generic[I]):
    """Questions about one picture, one thread at a time.

    Args:
        remember: `picture`: every question stands alone behind the picture, as nearly all that such models learn of
            segmenting does; an answer depends on no other. `conversation`: earlier questions and answers stand before
            the next one, so that it may say "it"; models answer worse so, unless they were trained on such talks
            (docs/predict.md has figures).

        image: the picture itself, which answers find again where it is known.

    `turns`: the answers so far. The picture's features and the language model's cache of what stands before a question
    are kept while the model is asked about few other pictures (`Prefixes`); later, they are read again.
    Raises UserError for another `remember`, and for a model that has no conversations.
    """

    def __init__(
        self, model: "Segmenting[I]", encoded: I, remember: Remember = "picture", image: Picturelike | None = None
    ) -> None:
        if remember not in get_args(Remember):
            raise UserError(f"remember: found {remember!r:.40}, expected {' or '.join(get_args(Remember))}")
        if remember == "conversation":
            model.check_conversation()
        self.model, self.remember, self.image = model, remember, image
        self._behind = [encoded]  # what the picture is asked behind: after each turn, one more
        self.turns: list[Segmentation] = []

    def ask(
        self, query: str, form: Form | None = None, max_new_tokens: int | None = None, **how: Unpack[How]
    ) -> Segmentation:
        """The answer to one question. Args, and what it raises, as `Segmenting.ask`."""
        for piece in self.stream(query, form, max_new_tokens, **how):
            found = piece
        assert isinstance(found, Segmentation)
        return found

    def stream(
        self, query: str, form: Form | None = None, max_new_tokens: int | None = None, **how: Unpack[How]
    ) -> Generator[str | Segmentation, None, None]:
        """The answer as it comes, as `Segmenting.ask_stream` gives it; one that is closed is no turn."""
        encoded = self._behind[-1]
        heard: list[Callable[[], I]] = []

        def told(asked: Query, answer: Answered) -> None:
            heard.append(lambda: self.model.behind(encoded, asked, answer))

        steps = self.model.ask_stream(encoded, query, form, max_new_tokens, told=told, image=self.image, **how)
        return self._remembered(steps, heard)

    def _remembered(
        self, steps: Generator[str | Segmentation, None, None], heard: list[Callable[[], I]]
    ) -> Generator[str | Segmentation, None, None]:
        for piece in steps:
            if isinstance(piece, Segmentation):
                self.turns.append(piece)
                self._behind.append(heard[0]() if self.remember == "conversation" else self._behind[0])
            yield piece

    def undo(self) -> Segmentation:
        """Forget the last turn; gives it. Raises UserError when there is none."""
        if not self.turns:
            raise UserError("there is no turn to undo: ask something first")
        self._behind.pop()
        return self.turns.pop()
