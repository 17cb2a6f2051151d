"""How a model is spoken to: the few choices that a recipe makes and a checkpoint keeps."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cores.errors import RecipeError
from cores.prompts.styles import STYLES, ClipFit, Exemplars, OnAbsent, StyleName
from cores.prompts.wording import CHAT, format_names
from cores.typed_yaml import fits
from cores.vocabulary import LEVEL_NAMES, LevelName


@dataclass(kw_only=True)
class PromptSection:
    """What a recipe says of prompts and pictures; None: the checkpoint's own with `model.start`, else the style's.

    A key here is one of `PromptSettings` or of `ProcessorSizes` by its own name, and needs no other mention.
    """

    format: str | None = None
    exemplars: Exemplars | None = None
    on_absent: OnAbsent | None = None
    clip_fit: ClipFit | None = None
    max_text_tokens: int | None = None

    def problems(self) -> Iterator[str]:
        """Numbers out of their range, a line each."""
        if self.max_text_tokens is not None and self.max_text_tokens < 1:
            yield f"prompt.max_text_tokens: found {self.max_text_tokens}, expected at least 1"


@dataclass(frozen=True)
class PromptSettings:
    """Format (`chat`: the model's own template), style and what follows from them; None takes the style's own.

    `levels`: of the chain, 1 to 3 (None: LISA's 1 or CoReS's 2). `exemplars`: `none`, `fixed` (number 0), `random`
    (one), or how many are drawn. `on_absent`: what is taught about something that is not there, `refuse` or
    `empty_mask` (the usual answer). `tokens`: each level's token, coarse to fine, by the level's name.

    Raises RecipeError that names every setting that cannot be used.
    """

    format: str = "llava_v1"
    style: StyleName = "paper"
    levels: int | None = None
    exemplars: Exemplars | None = None
    on_absent: OnAbsent | None = None
    tokens: dict[LevelName, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = []
        formats = [*format_names(), CHAT]
        if self.format not in formats:
            wrong.append(f"format: found {self.format!r}, expected one of {', '.join(formats)}")
        if self.style not in STYLES:
            raise RecipeError(f"prompt.style: found {self.style!r}, expected one of {', '.join(STYLES)}")
        style = STYLES[self.style]
        levels = self.levels if self.levels is not None else len(self.tokens) or style.levels
        if not fits(levels, int) or not fits(self.tokens, dict[str, str]) or not all(self.tokens.values()):
            raise RecipeError(
                f"prompt: found levels {levels!r:.40} and tokens {self.tokens!r:.80}, expected 1 to 3 texts"
            )
        names = LEVEL_NAMES.get(levels, ())
        tokens = {name: self.tokens.get(name, style.tokens[name]) for name in names}
        if not names:
            wrong.append(f"levels: found {levels}, expected 1, 2 or 3")
        elif not set(self.tokens) <= set(names):
            wrong.append(f"tokens: found those of {', '.join(self.tokens)}, expected those of {', '.join(names)}")
        elif len(set(tokens.values())) < levels:
            wrong.append(f"tokens: found {', '.join(tokens.values())}, expected a different one for each level")
        exemplars = style.exemplars if self.exemplars is None else self.exemplars
        if exemplars not in ("none", "fixed", "random") and (
            isinstance(exemplars, bool) or not isinstance(exemplars, int) or exemplars < 0
        ):
            wrong.append(f"exemplars: found {exemplars!r}, expected none, fixed, random or how many")
        on_absent = style.on_absent if self.on_absent is None else self.on_absent
        if on_absent not in ("refuse", "empty_mask"):
            wrong.append(f"on_absent: found {on_absent!r}, expected refuse or empty_mask")
        if wrong:
            raise RecipeError("; ".join(f"prompt.{one}" for one in wrong))
        resolved = {"levels": levels, "exemplars": exemplars, "on_absent": on_absent, "tokens": tokens}
        for name, value in resolved.items():
            object.__setattr__(self, name, value)

    @property
    def level_names(self) -> tuple[LevelName, ...]:
        """The chain's levels by name, coarse to fine."""
        return LEVEL_NAMES[self.levels or 0]

    @property
    def level_tokens(self) -> tuple[str, ...]:
        """The grounding tokens, coarse to fine."""
        return tuple(self.tokens[name] for name in self.level_names)
