"""Queries of strangers: a text may not act as the tokens with which prompts are built."""

from collections.abc import Collection

from transformers import PreTrainedTokenizerBase

from cores.errors import UserError
from cores.vocabulary import IM_END, IM_START, IMAGE, PUBLISHED_TOKENS, TOKENS

MARKS = {*TOKENS.values(), *PUBLISHED_TOKENS.values(), IMAGE, IM_START, IM_END}


class Harmless:
    """Makes queries harmless for one tokenizer: grounding tokens, the picture's marks, and whatever begins or ends a
    turn are read as letters. `marks`: further tokens of a checkpoint."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, marks: Collection[str] = ()) -> None:
        added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        known = tokenizer.get_vocab()
        self.tokenizer = tokenizer
        self.marks = sorted({*MARKS, *marks, *tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        unknown = tokenizer.unk_token_id  # what letters may become that the tokenizer lacks
        self.ids = {known[mark] for mark in self.marks if mark in known} - {unknown}

    def __call__(self, query: str) -> str:
        """The query with a blank inside of each mark: `[SEG]` becomes `[ SEG]`.

        Raises UserError where the tokenizer reads a mark in it all the same.
        """
        for mark in self.marks:
            query = query.replace(mark, f"{mark[0]} {mark[1:]}")
        if self.ids.intersection(self.tokenizer.encode(query, add_special_tokens=False)):
            raise UserError("the query is read as one of the model's own tokens: say it in other words")
        return query
