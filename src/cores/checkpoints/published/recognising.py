"""What a folder is that is no model of ours, by its config and its tokenizer, and what makes one of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cores.modeling.mllms import FAMILIES as MLLMS
from cores.segmenter_families import SEGMENTERS, VIDEO

# model_type of LLaVA's, LISA's and CoReS's own programs
PUBLISHED = ("llava", "llava_llama", "llama", "lisa", "cores_llama")


def chain_of(folder: Path, stored: Mapping[str, Any]) -> Literal["cores", "lisa"] | None:
    """Whose program wrote this published checkpoint, by its grounding tokens; None where it is none.

    `stored`: the fields of its config.json.
    """
    if _kind(stored) not in PUBLISHED or is_base(stored) or "levels" in stored:
        return None  # what has levels is a damaged model of ours
    files = [file for file in sorted(folder.glob("*token*.json")) if file.is_file()]
    said = "".join(file.read_text("utf-8", "replace") for file in files)
    if "[SEG_SEMA]" in said:
        return "cores"
    return "lisa" if "[SEG]" in said else None


def is_base(stored: Mapping[str, Any]) -> bool:
    """Is it a multimodal LLM or a segmenter in transformers' format?"""
    kinds = {*MLLMS, *SEGMENTERS, *VIDEO}
    parts = {"text_config", "vision_config", "tracker_config"}
    return _kind(stored) in kinds and bool(parts & stored.keys())


def _kind(stored: Mapping[str, Any]) -> str:
    """The model_type; empty where it is no text."""
    kind = stored.get("model_type")
    return kind if isinstance(kind, str) else ""


def way_in(folder: Path, stored: Mapping[str, Any]) -> str:
    """What makes a model of ours of a folder that is somebody else's."""
    kind = _kind(stored)
    if is_base(stored):
        role = "mllm" if kind in MLLMS else "segmenter"
        return f"it is a base; a recipe takes it as it is: `cores train ... model.{role}={folder}`"
    if kind not in PUBLISHED:
        return "expected model_type cores"
    verb = chain_of(folder, stored) or "llava"
    return f"`cores convert --from {verb} --src {folder} --clip CLIP --out DIR` makes one of it"
