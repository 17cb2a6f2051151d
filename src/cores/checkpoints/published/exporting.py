"""A model folder of ours in the published layout, so that other programs can read it: the way back of `convert`."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from cores.checkpoints.checking import check_static
from cores.checkpoints.find import find, is_checkpoint
from cores.checkpoints.load import read_config
from cores.checkpoints.published.convert_config import SAM_DECODER_EPS
from cores.checkpoints.published.convert_tokens import MODEL
from cores.checkpoints.published.export_config import published_fields, refuse_other_families, refuse_what_is_not_held
from cores.checkpoints.published.held_tokens import ADDED
from cores.checkpoints.published.keys import CLIP, PUBLISHED, inside, rename
from cores.checkpoints.published.plan import FILE, Line, Plan, Source, make_plan, table_text
from cores.checkpoints.shapes import SECOND_NAMES, shapes_of
from cores.checkpoints.tensors.lazy import open_shards
from cores.checkpoints.tensors.writing import Item, split
from cores.errors import CheckpointError
from cores.modeling.configuration import CoresConfig
from cores.modeling.strict import refuse
from cores.processing.legacy_tokenizer import PROOF, read_legacy_tokenizer
from cores.processing.processor import CoresProcessor
from cores.processing.tokens import encode
from cores.vocabulary import IM_END, IM_START
from cores.whole import whole_folder

MAX_SHARD = 2 * 10**9  # a pickle is written from memory: this much of it
TOWER = "mllm.model.vision_tower."
TO_PUBLISHED = tuple((ours, theirs) for theirs, ours in PUBLISHED if not ours.startswith(TOWER))
TO_CLIP = tuple((ours, theirs) for theirs, ours in inside(CLIP, "", TOWER))
FREQUENCIES = "model.layers.{}.self_attn.rotary_emb.inv_freq"


@dataclass(frozen=True)
class Exported:
    """`lines`: the key table; `unsaid`: settings that the layout has no place for, and whoever reads it must know."""

    folder: Path
    lines: list[Line]
    unsaid: list[str] = field(default_factory=list)


def export(
    model: str | Path | None,
    folder: str | Path,
    *,
    tokenizer: Path | None = None,
    replace: bool = False,
    told: Callable[[list[Line]], None] = lambda lines: None,
) -> Exported:
    """Write a model folder in the layout of the CoReS and LISA programs, whole or not at all; CLIP goes to `clip/`.

    Args: `tokenizer`: LLaMA's tokenizer.model, where the model folder has none; `told`: is given the key table before
    anything is written. Tensors keep their numbers and dtypes.
    Raises CheckpointError that names the fields which the layout cannot hold, for a run's checkpoint, and for a model
    that cannot be used; UserError when `folder` is there (without `replace`) or cannot be written.
    """
    source = find(model)
    if is_checkpoint(source):
        raise CheckpointError(f"{source}: is a run's checkpoint: make a model of it first, with `cores merge`")
    check_static(source)
    config, processor = read_config(source), CoresProcessor.from_pretrained(source)
    refuse_other_families(config, source)
    shapes = {name: shape for name, shape in shapes_of(config).items() if name not in SECOND_NAMES}
    published = {str(rename(n, TO_PUBLISHED)): shape for n, shape in shapes.items() if not n.startswith(TOWER)}
    refuse_what_is_not_held(config, published, source)
    pieces = tokenizer or source / MODEL
    added = added_tokens(pieces, processor.tokenizer, processor.prompt.level_tokens)

    tensors = open_shards(source)
    own = Source(source.name, tensors, TO_PUBLISHED, lambda n: "goes to clip/" if n.startswith(TOWER) else None)
    tower = Source(source.name, tensors, TO_CLIP, lambda n: None if n.startswith(TOWER) else "goes to the model")
    plan = make_plan(source, [own], published)
    clip_shapes = {str(rename(n, TO_CLIP)): shape for n, shape in shapes.items() if n.startswith(TOWER)}
    clip = make_plan(source, [tower], clip_shapes)
    frequencies = rotary_frequencies(config, tensors["mllm.lm_head.weight"].dtype)
    lines = [line for line in (*plan.lines, *clip.lines) if line.action != "ignored"]
    note = "rotary frequencies: the published programs' library keeps them as tensors"
    lines += [Line("", (), "computed", n, str(v.dtype)[6:], tuple(v.shape), note) for n, v in frequencies.items()]
    told(lines)

    with whole_folder(Path(folder), replace) as part:
        write_pickles(part, plan, frequencies)
        (part / "clip").mkdir()
        clip.write(part / "clip")
        (part / "clip" / FILE).unlink()
        (part / FILE).write_text(table_text(lines), encoding="utf-8")
        _write_json(part / "config.json", published_fields(config))
        _write_json(part / ADDED, added)
        (part / MODEL).write_bytes(pieces.read_bytes())
        _write_json(part / "tokenizer_config.json", tokenizer_fields())
        _write_json(part / "special_tokens_map.json", SPECIAL)
        vision = config.mllm_config.vision_config  # type: ignore[union-attr]
        vision.architectures = ["CLIPVisionModel"]
        vision.save_pretrained(part / "clip")
        if (source / "generation_config.json").is_file():
            GenerationConfig.from_pretrained(source).save_pretrained(part)
    return Exported(Path(folder), lines, unsaid_settings(config, processor))


def write_pickles(folder: Path, plan: Plan, more: dict[str, Tensor]) -> None:
    """Write `pytorch_model.bin`, or its shards of at most 2 GB and their index.

    `more`: tensors that the plan has not, by name. Raises CheckpointError that names every tensor of numbers that are
    not finite.
    """
    items = [Item(name, *plan.entry(name)[:2]) for name in plan.places]
    items += [Item(name, tuple(value.shape), value.dtype) for name, value in more.items()]
    groups = list(split(items, MAX_SHARD))
    names = ["pytorch_model.bin"]
    if len(groups) > 1:
        names = [f"pytorch_model-{n:05d}-of-{len(groups):05d}.bin" for n in range(1, len(groups) + 1)]
    broken: list[str] = []
    for name, group in zip(names, groups, strict=True):
        # cloned: a tensor that is mapped would be pickled with its whole file
        state = {
            item.name: more[item.name] if item.name in more else plan.tensor(item.name, broken).clone()
            for item in group
        }
        torch.save(state, folder / name)
        del state
    refuse(plan.sources[0].name, unusable=broken)
    if len(groups) > 1:
        places = {item.name: name for name, group in zip(names, groups, strict=True) for item in group}
        total = sum(item.size for item in items)
        _write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def rotary_frequencies(config: CoresConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Each layer's rotary frequencies (half a head's width,) by published name, as LLaMA computes them."""
    text = config.mllm_config.text_config  # type: ignore[union-attr]
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    theta = float(dict(text.rope_parameters or {}).get("rope_theta", 10000.0))
    value = (1.0 / theta ** (torch.arange(0, width, 2).float() / width)).to(dtype)
    return {FREQUENCIES.format(layer): value.clone() for layer in range(text.num_hidden_layers)}


def added_tokens(pieces: Path, tokenizer: PreTrainedTokenizerBase, grounding: Iterable[str]) -> dict[str, int]:
    """What `added_tokens.json` says. Raises CheckpointError unless `pieces` gives the model's own ids with it."""
    if not pieces.is_file():
        raise CheckpointError(
            f"{pieces}: is missing; the published layout needs LLaMA's tokenizer.model, which the model was trained "
            "with: give it as --tokenizer"
        )
    with_marks = read_legacy_tokenizer(pieces, ()).get_vocab()
    plain = min(with_marks[mark] for mark in (IM_START, IM_END))  # the marks are behind its own pieces
    vocabulary = tokenizer.get_vocab()
    added = {token: number for token, number in vocabulary.items() if number >= plain}
    added = dict(sorted(added.items(), key=lambda pair: pair[1]))
    same = all(vocabulary.get(token) == number for token, number in with_marks.items() if number < plain)
    if same:
        again = read_legacy_tokenizer(pieces, tuple(grounding), added)
        texts = (*PROOF, f"a {' b '.join(added)} . c", *(f"a {token}. c" for token in added))
        same = again.get_vocab() == vocabulary and all(encode(again, t) == encode(tokenizer, t) for t in texts)
    if not same:
        raise CheckpointError(f"{pieces}: is not the tokenizer of this model, it gives other ids: give the right one")
    return added


def unsaid_settings(config: CoresConfig, processor: CoresProcessor) -> list[str]:
    """What the layout does not say about this model and its programs would do otherwise."""
    decoder = config.segmenter_config.mask_decoder_config  # type: ignore[union-attr]
    usual = "published" if len(config.levels or ()) > 1 else "lisa"
    found = {
        "style": (config.style, usual),
        "the mask decoder's layer_norm_eps": (decoder.layer_norm_eps, SAM_DECODER_EPS),
        "clip_fit": (processor.sizes.clip_fit, "crop"),
        "prompt.format": (processor.prompt.format, "llava_v1"),
        "prompt.exemplars": (processor.prompt.exemplars, "fixed" if usual == "published" else "none"),
    }
    return [f"{name}: {ours} here, {theirs} there" for name, (ours, theirs) in found.items() if ours != theirs]


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}


def tokenizer_fields() -> dict[str, object]:
    """The slow LLaMA tokenizer of the published programs, as their library describes it."""
    return {
        **SPECIAL,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": 512,
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
    }


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
