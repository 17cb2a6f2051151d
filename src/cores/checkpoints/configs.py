"""A `config.json`, held to what a model can be before anything is built by it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from transformers import CONFIG_MAPPING, PreTrainedConfig

from cores.checkpoint_errors import checkpoint_errors, in_words
from cores.checkpoints.tensors.lazy import has_weights, open_shards
from cores.errors import CheckpointError
from cores.modeling.mllms import check_family
from cores.modeling.segmenters import segmenter_class
from cores.segmenter_families import SEGMENTERS, VIDEO

CONFIG = "config.json"
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
# each one of what these count has a tensor of its own; no other number of a model is as large as LARGEST
COUNTS = (
    "num_hidden_layers", "depth", "iou_head_depth", "num_multimask_outputs", "num_point_embeddings",
    "blocks_per_stage",
)  # fmt: skip
LARGEST = 2**31
MOST_TENSORS = 20_000  # of any model that is known: for a folder that holds a config and no weights

C = TypeVar("C", bound=PreTrainedConfig)


def read_json(file: Path, what: str = "a config") -> dict[str, Any]:
    """The mapping in a JSON file. Raises CheckpointError when it is missing or holds none; `what` it is, for that."""
    if file.exists() and not file.is_file():
        raise CheckpointError(f"{file}: is no regular file, expected {what}")
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: is missing, expected {what}: download the folder again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as {what}: {in_words(error)}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: holds a {type(found).__name__}, expected {what}")
    return found


def read_mllm(folder: Path) -> Any:
    """The config of a multimodal LLM in transformers' format, of a family that we know.

    Raises CheckpointError when it is none, or says what no model of it can be.
    """
    file = folder / CONFIG
    stored = read_json(file, "the config of a multimodal LLM")
    check_mllm(file, stored)
    return read_part(folder, CONFIG_MAPPING[stored["model_type"]])


def check_mllm(file: Path, stored: Any) -> None:
    """Raise CheckpointError that names the file, for a config of no family of multimodal LLMs that we know."""
    found = stored.get("model_type") if isinstance(stored, Mapping) else type(stored).__name__
    try:
        check_family(str(found))
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None


def read_part(folder: Path, kind: type[C]) -> C:
    """The config of a base in transformers' format. `kind`: its class, such as LlavaConfig.

    Raises CheckpointError when it is another family's, or says what no model of it can be.
    """
    file = folder / CONFIG
    stored = read_json(file, f"the config of a {kind.model_type}")
    if stored.get("model_type") != kind.model_type:
        raise CheckpointError(f"{file}: is the config of a {stored.get('model_type')!r:.80}, not a {kind.model_type}")
    refuse_fields(file, stored, tensors_in(folder))
    return make_config(file, kind, stored)


def read_segmenter(folder: Path) -> PreTrainedConfig:
    """The config of a segmenter in transformers' format; of a video model, of its part for single pictures.

    Raises CheckpointError when it is of no family that has an adapter, or says what no model of it can be.
    """
    file = folder / CONFIG
    stored = picture_part(read_json(file, "the config of a segmenter"))
    check_segmenter(file, stored)
    refuse_fields(file, stored, tensors_in(folder))
    return make_config(file, segmenter_class(stored["model_type"]).config_class, stored)


def picture_part(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a video model's config, what its family's model for single pictures has; any other as it is."""
    kind = stored.get("model_type")
    if not isinstance(kind, str) or kind not in VIDEO:
        return stored
    whole, detector = stored.get("tracker_config", stored), stored.get("detector_config")
    if isinstance(whole, Mapping) and isinstance(detector, Mapping):  # SAM 3: the detector owns the image encoder
        whole = {**whole, "vision_config": detector.get("vision_config")}
    found: dict[str, Any] = {"model_type": VIDEO[kind]}
    for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config"):
        if isinstance(whole, Mapping) and isinstance(part := whole.get(name), Mapping):
            own = name == "vision_config"  # the same class in both; the others have names of their own
            found[name] = {field: value for field, value in part.items() if own or field != "model_type"}
    return found


def check_segmenter(file: Path, stored: Any) -> None:
    """Raise CheckpointError that names the file, for a config of no family of segmenters, or that its own refuses."""
    found = stored.get("model_type") if isinstance(stored, Mapping) else type(stored).__name__
    if not isinstance(found, str) or found not in SEGMENTERS:
        known = f"{', '.join(list(SEGMENTERS)[:-1])} or {list(SEGMENTERS)[-1]}"
        raise CheckpointError(f"{file}: is of a {found!s:.80}, expected the config of a segmenter: {known}")
    try:
        segmenter_class(found).check(stored)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None


def make_config(file: Path, kind: type[C], stored: Mapping[str, Any]) -> C:
    """A config of transformers' by its fields. Raises CheckpointError for whatever transformers says of them."""
    with checkpoint_errors(file, "be read as a config", "take the one that was saved with the weights"):
        found: C = kind.from_dict(dict(stored))
        return found


def tensors_in(folder: Path) -> int:
    """How many tensors the weights of a folder are; where it holds none, as many as a model may have at most."""
    return len(open_shards(folder)) if has_weights(folder) else MOST_TENSORS


def refuse_fields(file: Path, stored: Mapping[str, Any], tensors: int) -> None:
    """Raise CheckpointError that names every field which no model in files of so many tensors can have.

    This is before anything is built: a config of a million layers takes hours, and an attention of somebody's own is
    a program to be fetched.
    """
    wrong = []
    for path, name, value in fields_of(stored):
        if name == "quantization_config" and value is not None:
            wrong.append(f"{path}: quantised weights are not read here: take those from before")
        elif name.removeprefix("_").removesuffix("_internal") == "attn_implementation":
            if value not in (None, *ATTENTIONS):
                wrong.append(f"{path}: found {value!r:.80}, expected one of {', '.join(ATTENTIONS)}")
        elif isinstance(value, int | float) and not -LARGEST < value < LARGEST:
            wrong.append(f"{path}: found {str(value):.40}, which is no size of a model")
        elif name in COUNTS and isinstance(value, int) and value > tensors:
            wrong.append(f"{path}: found {value}, but the files hold {tensors} tensors in all")
    if wrong:
        raise CheckpointError(f"{file}: says what no model here can be: {'; '.join(wrong[:12])}")


def fields_of(stored: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every field at any depth: its path, its name, its value. A list's items have the list's name."""
    items = stored.items() if isinstance(stored, Mapping) else enumerate(stored)
    for key, value in items:
        name = str(key) if isinstance(stored, Mapping) else path.rpartition(".")[2]
        here = f"{path}.{key}" if path else str(key)
        yield here, name, value
        if isinstance(value, dict | list):
            yield from fields_of(value, here)
