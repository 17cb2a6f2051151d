"""From a published checkpoint's tensors and config to the model that they are, before anything is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import CLIPVisionConfig

from cores.checkpoints.published.convert_config import llava_config, sam_config
from cores.checkpoints.published.keys import CLIP, PUBLISHED, Table, inside
from cores.checkpoints.published.plan import Plan, Source, make_plan
from cores.checkpoints.shapes import SECOND_NAMES, shapes_of
from cores.checkpoints.tensors.lazy import Tensors
from cores.modeling.configuration import CoresConfig
from cores.prompts.styles import StyleName

SAM_PREFIX = "model.visual_model."
TOWER_PREFIX = "model.vision_tower.vision_tower."
REFINER_PREFIX = "transformer_cross_attention_layers."
STYLE_OF: dict[str, StyleName] = {"cores": "published", "lisa": "lisa"}
# a CLIP's own file, by the names of its releases and by those of today's `CLIPVisionModel`
CLIP_FILE: Table = (*CLIP, *((ours, ours) for _, ours in CLIP))
CLIP_REST = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


@dataclass(frozen=True, slots=True)
class Tower:
    """CLIP's vision tower. `name`: for the key table."""

    name: str
    tensors: Tensors
    config: CLIPVisionConfig


def plan_model(
    where: object,
    name: str,
    published: Mapping[str, Any],
    tensors: Tensors,
    tower: Tower,
    levels: Sequence[Mapping[str, Any]],
    style: StyleName,
    grown: bool = False,
) -> tuple[CoresConfig, Plan]:
    """A whole CoReS or LISA as a config and a plan.

    Args: `where`: for errors; `name`: for the key table; `published`: the fields of its config.json; `levels`: of the
    chain, as in CoresConfig; `grown`: the config is that of the base it was trained from.
    Raises CheckpointError that lists all that does not fit.
    """
    shapes = {name: entry.shape for name, entry in tensors.items()}
    sam = {name.removeprefix(SAM_PREFIX): shape for name, shape in shapes.items() if name.startswith(SAM_PREFIX)}
    refined = any(name.startswith(REFINER_PREFIX) for name in shapes)
    config = CoresConfig(
        mllm_config=llava_config(where, published, shapes, tower.config, grown),
        segmenter_config=sam_config(sam, where),
        levels=[dict(level) for level in levels],
        refiner="published" if refined and len(levels) > 1 else "none",
        style=style,
    )
    own = any(name.startswith(TOWER_PREFIX) for name in shapes)
    sources = [Source(name, tensors, PUBLISHED), clip_source(tower, "mllm.model.vision_tower.", own)]
    expected = shapes_of(config, str(where))
    return config, make_plan(where, sources, expected, SECOND_NAMES)


def clip_source(tower: Tower, ours: str, unused: bool = False) -> Source:
    """A CLIP's file as the vision tower. `unused`: the checkpoint brings its own."""

    def leave(key: str) -> str | None:
        if key.startswith(CLIP_REST):
            return "CLIP's other half: only its vision tower looks at pictures"
        return "the checkpoint brings a vision tower of its own" if unused else None

    return Source(tower.name, tower.tensors, inside(CLIP_FILE, "", ours), leave)
