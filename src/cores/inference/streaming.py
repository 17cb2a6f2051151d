"""An answer's text as it is said, in pieces of whole words."""


class Pieces:
    """Parts of a growing text. A word is given when the next one begins, for a tokenizer may still change its end."""

    def __init__(self) -> None:
        self.given = ""

    def more(self, text: str) -> str:
        """What of the text so far is new and whole; may be empty."""
        return self.rest(text[: max(text.rfind(" "), 0)])

    def rest(self, text: str) -> str:
        """What of the text is new. All pieces, joined, are the text that comes last."""
        if not text.startswith(self.given):
            return ""
        piece = text[len(self.given) :]
        self.given = text
        return piece
