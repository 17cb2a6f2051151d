"""The three stages in order, each with the steps that the shipped models had, and the bases made of them."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlavaConfig, PreTrainedTokenizerBase

from cores.checkpoints.runs.bases import PROJECTION
from cores.modeling import CoresConfig, CoresModel
from cores.processing import CoresProcessor, ProcessorSizes
from cores.prompts import PromptSettings
from cores.prompts.styles import StyleName
from cores.scenes.pretrain.mllm import Answering, Lessons, llama_config, see_all
from cores.scenes.pretrain.mllm import train as train_llava
from cores.scenes.pretrain.render import SIDE, Rendered, render
from cores.scenes.pretrain.segmenter import TokenFromBox, new_sam, sam_config
from cores.scenes.pretrain.segmenter import train as train_segmenter
from cores.scenes.pretrain.tower import GRID, SeeingWords, tower_config
from cores.scenes.pretrain.tower import train as train_tower
from cores.scenes.source import FIRST_SEED, open_scenes
from cores.scenes.tokenizer import build_tokenizer

log = logging.getLogger(__name__)
STEPS = {"tower": 1500, "segmenter": 2400, "llava": 900}
UNSEEN = 512


def run_stages(
    out: Path, stages: Iterable[str], scenes: int, steps: int | None, styles: Sequence[StyleName] = ("paper",)
) -> None:
    """Train the named stages, each from where it stopped; the last one ends with the bases in `out`/bases.

    `out` holds the drawn scenes and the states. `scenes`: how many are drawn to train on; `steps`: of the optimiser in
    each stage, None for those that the shipped models had; `styles`: the prompts' that the language model reads, in
    turn: with `paper` and `lisa` it has no head start in either form.
    """
    data = render(out / "scenes", FIRST_SEED["train"], scenes)
    unseen = render(out / "scenes", FIRST_SEED["val"], UNSEEN)
    for stage in stages:
        wanted = steps or STEPS[stage]
        if stage == "tower":
            train_tower(out, data, unseen, wanted)
        elif stage == "segmenter":
            train_segmenter(out, data, unseen, wanted)
        else:
            answer(out, data, unseen, wanted, styles)


def answer(out: Path, data: Rendered, unseen: Rendered, steps: int, styles: Sequence[StyleName]) -> None:
    """The language model's stage, on the states of the two before it. `steps`: of the optimiser; `styles`: as above.

    Raises FileNotFoundError when one of the two has not been trained.
    """
    seen, token = SeeingWords(), TokenFromBox()
    seen.load_state_dict(_state(out / "tower.pt")["model"])
    token.load_state_dict(_state(out / "segmenter.pt")["token"])
    processor = tiny_processor()
    forms = [tiny_processor(processor.tokenizer, style) for style in styles]
    torch.manual_seed(0)
    model = Answering(processor.tokenizer, seen, token)
    train_scenes, unseen_scenes = open_scenes("train", n=len(data)), open_scenes("val", n=len(unseen))
    features = see_all(out / "features.npy", seen, data.pictures)
    lessons = [Lessons(form, train_scenes, data, features) for form in forms]
    features = see_all(out / "features-unseen.npy", seen, unseen.pictures)
    exams = [Lessons(form, unseen_scenes, unseen, features) for form in forms]
    train_llava(out, model, lessons, exams, processor.sizes.image_token_id, steps)
    base = assemble(processor, seen, model, _state(out / "segmenter.pt")["model"])
    bases = out / "bases"
    base.mllm.save_pretrained(bases / "mllm")
    processor.tokenizer.save_pretrained(bases / "mllm")
    base.segmenter.save_pretrained(bases / "segmenter")
    save_file({name: value.contiguous() for name, value in base.projection.state_dict().items()}, bases / PROJECTION)
    log.info("the bases are in %s: cores train tiny model.bases=%s", bases, bases)


def tiny_processor(tokenizer: PreTrainedTokenizerBase | None = None, style: StyleName = "paper") -> CoresProcessor:
    """The tiny models' processor, around a tokenizer that is built anew where none is given."""
    tokenizer = tokenizer or build_tokenizer()
    sizes = ProcessorSizes(
        mllm_image_size=SIDE,
        image_tokens=GRID * GRID,
        image_token_id=int(tokenizer.convert_tokens_to_ids("<image>")),
        segmenter_image_size=SIDE,
        max_text_tokens=512,
    )
    # No exemplar: it would double the prefix, and two cores train on the prefix too.
    return CoresProcessor(tokenizer, PromptSettings(format="plain", style=style, exemplars="none"), sizes)


def tiny_config(processor: CoresProcessor) -> CoresConfig:
    """The tiny CoReS: two levels, the paper's refiner."""
    mllm = LlavaConfig(
        vision_config=tower_config(),
        text_config=llama_config(len(processor.tokenizer)),
        image_token_index=processor.sizes.image_token_id,
        image_seq_length=processor.sizes.image_tokens,
        vision_feature_layer=-1,
        projector="mlp2x_gelu",
    )
    names = zip(processor.prompt.tokens.items(), processor.token_ids, strict=True)
    return CoresConfig(
        mllm_config=mllm,
        segmenter_config=sam_config(),
        levels=[{"name": level, "token": token, "token_id": number} for (level, token), number in names],
    )


def assemble(
    processor: CoresProcessor, seen: SeeingWords, answering: Answering, segmenter: dict[str, torch.Tensor]
) -> CoresModel:
    """One CoReS of what the stages learned. Its refiner is new; its projection is the one that gave prompt tokens.

    `segmenter`: the state, by name, of a SAM.
    """
    model = CoresModel(tiny_config(processor))
    llava = model.mllm.model
    llava.vision_tower.load_state_dict(seen.tower.state_dict())
    projector = answering.projector
    for ours, layer in ((llava.multi_modal_projector.linear_1, 0), (llava.multi_modal_projector.linear_2, 2)):
        part = projector[layer]
        assert isinstance(part, nn.Linear)
        ours.load_state_dict(part.state_dict())
    llava.language_model.load_state_dict(answering.llama.model.state_dict())
    model.mllm.lm_head.load_state_dict(answering.llama.lm_head.state_dict())
    sam = new_sam()
    sam.load_state_dict(segmenter)
    model.segmenter.load_state_dict(sam.state_dict())
    model.projection.load_state_dict(answering.projection.state_dict())
    model.eval()
    return model


def _state(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    found: dict[str, dict[str, torch.Tensor]] = torch.load(path, weights_only=True)
    return found
