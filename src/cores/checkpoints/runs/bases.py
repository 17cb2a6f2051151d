"""A LLaVA and a segmenter for a chain to be put on: from folders in transformers' format, or the tiny ones that ship.

The tiny bases ship as the tensors in which they differ from the tiny CoReS that was trained on them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from cores.checkpoint_errors import checkpoint_errors
from cores.checkpoints.configs import read_mllm, read_part, read_segmenter
from cores.checkpoints.find import find, shipped
from cores.checkpoints.library_errors import quietly
from cores.checkpoints.runs.fingerprint import fingerprint, fingerprint_of
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.shapes import refuse_larger
from cores.checkpoints.tensors.lazy import open_shards, wrong_types
from cores.errors import CheckpointError
from cores.modeling.mllms import mllm_class
from cores.modeling.model import CoresModel
from cores.modeling.segmenters import segmenter_class
from cores.modeling.strict import refuse, refuse_broken

DIFFERENCE = "difference.safetensors"
PROJECTION = "projection.safetensors"
NEW_ROW_STD = 0.02  # of embedding and head rows of new tokens (published; libraries of today take the mean)

P = TypeVar("P", bound=PreTrainedModel)


class Parts(NamedTuple):
    """`projection`: the state, by name, of one that was pretrained too, else None."""

    mllm: Any  # a MultimodalLLM
    segmenter: Any  # a Segmenter
    projection: dict[str, Tensor] | None


def folders_of(base: Base) -> dict[str, Path]:
    """Where `mllm`, `segmenter` and, when it is there, `projection` are. Raises CheckpointError when one is not."""
    if "mllm" in base.paths:
        return {role: find(path) for role, path in base.paths.items()}
    bases = Path(base.paths["bases"])
    found = {"mllm": bases / "mllm", "segmenter": bases / "segmenter"}
    missing = [str(folder) for folder in found.values() if not folder.is_dir()]
    if missing:
        raise CheckpointError(
            f"{bases}: expected a folder with mllm/ and segmenter/; there is no {', '.join(missing)}; of a run whose "
            "bases were moved: say --base bases=PATH"
        )
    return found


def weights_of(base: Base) -> dict[str, str]:
    """The fingerprints of a base as it is now, by role: of what is used of it, and of nothing else.

    Raises CheckpointError when it is not there or holds no weights.
    """
    if "start" in base.paths:
        return {"start": fingerprint(find(base.paths["start"]))}
    if base.paths.get("bases") == "shipped":
        return _shipped_weights()
    found = {role: fingerprint(folder) for role, folder in folders_of(base).items()}
    projection = _projection(base)
    return found if projection is None else found | {"projection": fingerprint_of(load_file(projection))}


def _shipped_weights() -> dict[str, str]:
    """Of the parts of the shipped bases. What else is in the shipped model (its refiner) is no base of anything."""
    file = shipped("bases-tiny") / DIFFERENCE
    with checkpoint_errors(file):
        difference = load_file(file)
        model = {
            name: value
            for part in shipped("cores-tiny").glob("*.safetensors")
            for name, value in load_file(part).items()
        }
    state = {**model, **difference}
    roles = [
        "mllm",
        "segmenter",
        *(["projection"] if any(name.startswith("projection.") for name in difference) else []),
    ]
    return {
        role: fingerprint_of({name: value for name, value in state.items() if name.startswith(f"{role}.")})
        for role in roles
    }


def load_parts(base: Base, **options: Any) -> Parts:
    """The bases, strictly loaded. `options`: `dtype`.

    Raises CheckpointError as `folders_of` and `load_strictly`.
    """
    if base.paths.get("bases") == "shipped":
        return _shipped_parts(**options)
    folders = folders_of(base)
    mllm = load_mllm(folders["mllm"], **options)
    segmenter = load_segmenter(folders["segmenter"], **options)
    file = _projection(base)
    return Parts(mllm, segmenter, None if file is None else load_file(file))


def _projection(base: Base) -> Path | None:
    """The file of a projection that was pretrained with the bases, where there is one."""
    file = Path(base.paths["bases"]) / PROJECTION if "bases" in base.paths else None
    return file if file is not None and file.exists() else None


def draw_rows(mllm: Any, size: int, new_tokens: Sequence[int]) -> None:
    """Make the vocabulary at least `size` rows; those of new tokens, in embedding and head, are drawn anew.

    From a normal distribution of deviation 0.02, as the published programs do.
    """
    if size > mllm.get_input_embeddings().weight.shape[0]:
        mllm.grow_vocabulary(size)
    tables = [mllm.get_input_embeddings().weight, mllm.get_output_embeddings().weight]
    for table in tables[: 1 if tables[0] is tables[1] else 2]:  # a tied head is the same table
        for number in new_tokens:
            table.data[number].normal_(0, NEW_ROW_STD)


def load_mllm(folder: Path, **options: Any) -> Any:
    """A multimodal LLM of any family, strictly loaded. Raises CheckpointError."""
    config = read_mllm(folder)
    return load_strictly(mllm_class(config.model_type), folder, config, **options)


def load_segmenter(folder: Path, **options: Any) -> Any:
    """A segmenter of any family, strictly loaded; of a video model's folder, its part for single pictures."""
    config = read_segmenter(folder)
    return load_strictly(segmenter_class(config.model_type), folder, config, **options)


def load_strictly(kind: type[P], folder: Path, config: PreTrainedConfig | None = None, **options: Any) -> P:
    """A part in transformers' format, in any layout that its own class loads whole.

    Raises CheckpointError that names every tensor that is missing, left over, of another shape or type, or not finite.
    """
    refuse(folder, unusable=wrong_types(open_shards(folder)))
    config = config or read_part(folder, kind.config_class)
    refuse_larger(kind, config, folder)
    options |= {"config": config, "output_loading_info": True}
    with quietly(), checkpoint_errors(folder):
        model, info = kind.from_pretrained(folder, ignore_mismatched_sizes=True, **options)
    refuse(folder, info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
    loaded: P = model
    refuse_broken(folder, loaded.state_dict())
    return loaded


def write_difference(bases: Path, model: CoresModel, folder: Path) -> None:
    """Write bases as the tensors that differ from those of a model trained on them, in that model's dtype.

    Raises CheckpointError when the bases cannot be loaded.
    """
    base = Base({"bases": str(bases)})
    parts = load_parts(base)
    old = {f"mllm.{name}": value for name, value in parts.mllm.state_dict().items()}
    old |= {f"segmenter.{name}": value for name, value in parts.segmenter.state_dict().items()}
    old |= {f"projection.{name}": value for name, value in (parts.projection or {}).items()}
    new = model.state_dict()
    rounded = {name: value.to(new[name].dtype) for name, value in old.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in rounded.items() if not torch.equal(value, new[name])},
        folder / DIFFERENCE,
    )


def _shipped_parts(**options: Any) -> Parts:
    """The tiny CoReS with the tensors put back in which its bases differ from it."""
    file = shipped("bases-tiny") / DIFFERENCE
    with quietly(), checkpoint_errors(file):
        model = CoresModel.from_pretrained(shipped("cores-tiny"), **options)
    state, difference = model.state_dict(), load_file(file)
    wrong = sorted(name for name, value in difference.items() if name not in state or state[name].shape != value.shape)
    if wrong:
        raise CheckpointError(
            f"{file}: does not fit the model that comes with cores: {', '.join(wrong)}: install again"
        )
    for name, value in difference.items():
        state[name].copy_(value)
    learned = any(name.startswith("projection.") for name in difference)
    return Parts(model.mllm, model.segmenter, model.projection.state_dict() if learned else None)
