"""What is said to the language model and what it is taught to say. Strings are data files; no torch, no tokenizer."""

from cores.prompts.prompt import Exchange, Piece, Prompt
from cores.prompts.settings import PromptSettings
from cores.prompts.wording import Exemplar, Format, Wording, format_names

__all__ = ["Exchange", "Exemplar", "Format", "Piece", "Prompt", "PromptSettings", "Wording", "format_names"]
