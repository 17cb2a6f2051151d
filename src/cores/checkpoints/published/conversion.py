"""Published checkpoints in: a CoReS or LISA as its authors' program wrote it becomes a model folder of ours.

Tensors pass through one by one; all names and shapes are checked before the first of them is read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedConfig

from cores.checkpoints.configs import read_json, refuse_fields
from cores.checkpoints.published.convert_config import language_config, tower_config
from cores.checkpoints.published.convert_lora import DEFAULT_ALPHA, Folded
from cores.checkpoints.published.convert_model import STYLE_OF, Tower, plan_model
from cores.checkpoints.published.convert_proof import Proof, prove
from cores.checkpoints.published.convert_tokens import MODEL, levels_of, make_processor, read_tokenizer, write_settings
from cores.checkpoints.published.plan import Plan
from cores.checkpoints.published.recognising import PUBLISHED
from cores.checkpoints.save import Card, card_text
from cores.checkpoints.tensors.deepspeed_shards import Consolidated, is_sharded
from cores.checkpoints.tensors.digests import write_digests
from cores.checkpoints.tensors.lazy import Tensors, open_shards
from cores.errors import CheckpointError
from cores.hub import fetch
from cores.modeling.model import CoresModel
from cores.prompts import PromptSettings
from cores.whole import whole_folder

EMBEDDINGS = "model.embed_tokens.weight"
Seen = Callable[[str], None]


@dataclass(frozen=True)
class Converted:
    """What a conversion did. `rank`: of the LoRA that was folded in, 0 without; `proof`: that it changed nothing."""

    folder: Path
    plan: Plan
    config: PreTrainedConfig
    rank: int = 0
    proof: Proof | None = None


def convert(
    kind: str,
    src: str | Path,
    clip: str | Path,
    folder: str | Path,
    *,
    base: str | Path | None = None,
    alpha: float = DEFAULT_ALPHA,
    dtype: torch.dtype | None = None,
    prompt_format: str = "llava_v1",
    device: str = "cpu",
    seed: int = 0,
    replace: bool = False,
    quiet: bool = True,
    told: Callable[[Plan], None] = lambda plan: None,
) -> Converted:
    """Write a published checkpoint as a model folder, whole or not at all.

    Args:
        kind: `cores` or `lisa`.
        src: folder, file or hub id: a merged checkpoint, or a training state (`pytorch_model.bin` or DeepSpeed's
            shards), whose LoRA is folded in with `alpha`.
        clip: folder or hub id of the CLIP whose vision tower it was trained with.
        base: for a training state, the folder of the LLaVA that it was trained from (its config.json and tokenizer).
        dtype: of the stored weights; None keeps each tensor's own.
        device, seed: of the questions that prove a folded LoRA.
        told: is given the plan before the first tensor is read.

    Raises CheckpointError that lists all that is missing, unexpected or of another shape, before anything is written;
    UserError when `folder` is there (without `replace`) or cannot be written; CheckFailed when a folded LoRA does not
    give the same masks.
    """
    settings = PromptSettings(format=prompt_format, style=STYLE_OF[kind])
    source = fetch(src)
    tensors = Folded(open_tensors(source), alpha)
    about = source if base is None else fetch(base)
    about = about if about.is_dir() else about.parent
    published = read_json(about / "config.json", "the config of a published checkpoint (or give its base as --base)")
    check_kind(about, published)
    refuse_fields(about / "config.json", published, len(tensors))
    if EMBEDDINGS not in tensors:
        raise CheckpointError(f"{src}: holds no {EMBEDDINGS}: these are no weights of a whole {kind} model")
    base_rows = None if base is None else language_config(about, published).vocab_size
    tokenizer = read_tokenizer(about, kind, settings, tensors.tensor(EMBEDDINGS), base_rows)
    levels = levels_of(tokenizer, settings, tensors[EMBEDDINGS].shape[0], src)
    tower = open_tower(fetch(clip))
    config, plan = plan_model(
        src, name_of(src), published, tensors, tower, levels, settings.style, grown=base is not None
    )
    config.dtype = dtype or tensors[EMBEDDINGS].dtype
    config.architectures = [CoresModel.__name__]
    told(plan)

    with whole_folder(Path(folder), replace) as part:
        with progress(len(plan.places), quiet) as seen:
            plan.write(part, dtype, seen)
        write_digests(part)
        write_settings(part, config, make_processor(tokenizer, settings, config), about / MODEL)
        with torch.device("meta"):
            card = card_text(CoresModel(config), _card(kind, src, tensors, alpha))
        (part / "README.md").write_text(card, encoding="utf-8")
        proof = prove(part, tensors, device, seed) if tensors.adapted else None
    return Converted(Path(folder), plan, config, tensors.rank, proof)


def open_tensors(path: Path) -> Tensors:
    """The tensors at a path: files of weights, or DeepSpeed's shards put together.

    Raises CheckpointError as `open_shards` and `Consolidated`.
    """
    return Consolidated(path) if is_sharded(path) else open_shards(path)


def open_tower(path: Path) -> Tower:
    """CLIP's vision tower in a folder of transformers' format.

    Raises CheckpointError when it is a file, or its config or weights cannot be used.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file, expected the folder of a CLIP with its config.json")
    stored, tensors = read_json(path / "config.json", "the config of a CLIP"), open_shards(path)
    refuse_fields(path / "config.json", stored, len(tensors))
    return Tower(f"clip {path.name}", tensors, tower_config(path / "config.json", stored))


def check_kind(folder: Path, published: dict[str, object]) -> None:
    """Raise CheckpointError unless a config is that of a LLaMA with a picture's eyes, as published."""
    kind = published.get("model_type")
    if kind == "cores":
        raise CheckpointError(f"{folder}: is a model folder of cores already: there is nothing to convert")
    if "text_config" in published:
        raise CheckpointError(f"{folder}: is in transformers' own format: recipes take it as model.mllm as it is")
    if kind not in (*PUBLISHED, None):
        raise CheckpointError(f"{folder / 'config.json'}: is the config of a {kind}, expected a LLaVA's or LLaMA's")


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Seen]:
    """A bar that counts tensors."""
    with tqdm(total=total, desc="convert", unit="tensor", disable=quiet) as bar:

        def seen(target: str) -> None:
            bar.update()

        yield seen


def name_of(src: str | Path) -> str:
    """A folder's or file's own name; a hub id as it is."""
    return Path(src).resolve().name if Path(src).exists() else str(src)


def _card(kind: str, src: str | Path, tensors: Folded, alpha: float) -> Card:
    name = name_of(src)
    about = f"Converted from `{name}` by `cores convert --from {kind}`; keys.tsv says what became of every tensor."
    if tensors.adapted:
        about += f" LoRA of rank {tensors.rank} was folded in with alpha {alpha:g}."
    return Card(title=f"{name}, for cores", about=about, license="other", base=[name])
