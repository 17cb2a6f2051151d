"""A chain in words by its name: `words:MLLM+SEGMENTER`, or a YAML file that names both and its settings.

kind: words
mllm: Qwen/Qwen3-VL-4B-Instruct
segmenter: facebook/sam2.1-hiera-large
levels: 2
crop: true
votes: 1
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
import yaml
from transformers import AutoModelForImageTextToText, AutoTokenizer

from cores.checkpoint_errors import checkpoint_errors
from cores.checkpoints.configs import CONFIG, read_json, read_mllm
from cores.checkpoints.find import find, is_checkpoint
from cores.checkpoints.library_errors import quietly
from cores.checkpoints.load import as_device, as_dtype, load
from cores.checkpoints.runs.bases import load_parts
from cores.checkpoints.runs.bases import load_segmenter as load_base_segmenter
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.shapes import refuse_larger
from cores.errors import RecipeError, UserError
from cores.hub import fetch
from cores.modeling.quantizing import Bits
from cores.modeling.strict import refuse, refuse_broken
from cores.processing.language_pixels import load_image_processor
from cores.typed_yaml import Loader, describe, fits, nearest
from cores.words.chain import Settings, WordsChain
from cores.words.grounding import Grounding, grounding_of
from cores.words.hub_speaker import HubSpeaker
from cores.words.speaker import CoresSpeaker, Speaker

PREFIX = "words:"
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class WordsRecipe:
    """`mllm`: a folder or hub id of an instruct model, `owner/name@revision` among them, or a model of ours that says
    boxes; `segmenter`: of a promptable segmenter, or of a model of ours, whose segmenter it is; `shipped`: what comes
    with cores. The others: see `Settings`."""

    kind: Literal["words"] = "words"
    mllm: str
    segmenter: str
    levels: Literal[1, 2] = 2
    crop: bool = True
    votes: int = 1

    @property
    def settings(self) -> Settings:
        return Settings(levels=self.levels, crop=self.crop, votes=self.votes)


def is_words(path: str | Path | None) -> bool:
    """Does this name a chain in words? A YAML file is taken for one: no model of another kind is one."""
    return path is not None and (str(path).startswith(PREFIX) or Path(path).suffix in SUFFIXES)


def read_words(name: str) -> WordsRecipe:
    """The recipe of a name or of a YAML file. Raises RecipeError with all that is wrong."""
    if not name.startswith(PREFIX):
        return _read(Path(name))
    parts = name.removeprefix(PREFIX).split("+")
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise RecipeError(f"{name}: expected words:MLLM+SEGMENTER, each a folder or a hub id")
    return WordsRecipe(mllm=parts[0].strip(), segmenter=parts[1].strip())


def _read(file: Path) -> WordsRecipe:
    try:
        values = yaml.load(file.read_text("utf-8"), Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{file}: is no YAML: {' '.join(str(error).split())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read: {error}") from None
    if not isinstance(values, dict) or values.get("kind") != "words":
        raise RecipeError(f"{file}: is no chain in words: expected kind: words, mllm: and segmenter:")
    hints = get_type_hints(WordsRecipe)
    wrong = [f"there is no {key}{nearest(str(key), hints)}" for key in values if key not in hints]
    wrong += [f"{name} is missing" for name in ("mllm", "segmenter") if name not in values]
    wrong += [
        f"{key}: found {value!r:.80}, expected {describe(hints[key])}"
        for key, value in values.items()
        if key in hints and not fits(value, hints[key])
    ]
    if wrong:
        raise RecipeError(f"{file}: {'; '.join(wrong)}")
    return WordsRecipe(**values)


def load_words(
    name: str,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    quantize: Bits | None = None,
) -> WordsChain:
    """A chain in words, ready to be asked.

    Raises RecipeError for a name or a file that says nothing of the kind, CheckpointError for models that are missing,
    not whole, or of a family that says no boxes (`grounding_of`), UserError for a device that is not there, and for
    `quantize`, which chains in words do not have.
    """
    if quantize is not None:
        raise UserError("quantize: a chain in words is not rounded here: leave it out")
    recipe = read_words(name)
    settings, device = recipe.settings, as_device(device)
    kind = as_dtype(dtype, device)
    return WordsChain(
        load_speaker(recipe.mllm, device, kind), load_segmenter(recipe.segmenter, device, kind), settings, seed
    )


def load_speaker(name: str, device: torch.device, dtype: torch.dtype | None) -> Speaker:
    """A model that is asked for boxes; its family is looked at before weights are fetched. Raises CheckpointError."""
    about = _about(name)
    kind = "cores" if is_checkpoint(about) else _model_type(about)
    grounding = grounding_of(kind, name)
    if kind == "cores":
        model, processor = load(name, device, dtype)
        return CoresSpeaker(model, processor, grounding)
    return _from_hub(find(name), grounding, device, dtype)


def _from_hub(folder: Path, grounding: Grounding, device: torch.device, dtype: torch.dtype | None) -> HubSpeaker:
    config = read_mllm(folder)
    refuse_larger(AutoModelForImageTextToText._model_mapping[type(config)], config, folder)
    with quietly(), checkpoint_errors(folder, "be loaded as an instruct model"):
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder, config=config, dtype=dtype or "auto", output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    image_processor = load_image_processor(folder, model.config)
    refuse(folder, info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
    refuse_broken(folder, model.state_dict())
    return HubSpeaker(model.to(device), tokenizer, image_processor, grounding)


def load_segmenter(name: str, device: torch.device, dtype: torch.dtype | None) -> Any:
    """A promptable segmenter in transformers' format, or the one of a model of ours. Raises CheckpointError."""
    if name == "shipped":
        found = load_parts(Base({"bases": "shipped"}), dtype=dtype or "auto").segmenter
    else:
        folder = find(name)
        if is_checkpoint(folder) or _model_type(folder) == "cores":
            found = load(folder, device, dtype)[0].segmenter
        else:
            found = load_base_segmenter(folder, dtype=dtype or "auto")
    return found.to(device).eval()


def _about(name: str) -> Path:
    """The folder of a model, or its config alone where it is on a hub."""
    return find(name) if name == "shipped" or Path(name).exists() else fetch(name, weights=False)


def _model_type(folder: Path) -> str:
    stored: Mapping[str, Any] = read_json(folder / CONFIG, "a model's config")
    return str(stored.get("model_type"))
