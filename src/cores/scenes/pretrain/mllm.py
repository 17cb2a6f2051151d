"""The tiny language model from scratch, over a tower that already sees: to answer, to point, to say where.

It reads the conversations of one form or of several in turn, as the chain's and LISA's. Beside the words it learns to
point (which patches show the location, which the target) at the end of the question and where it is about to say [LOC]
and [SEG], half way up and at the top; to tell boxes; and to give the very prompt token that the segmenter learned to
read. The readers for all this are thrown away afterwards, but for the one that gives the prompt token: the chain's
projection.

Legend: images = pictures of a batch, patches = 64, masks = all targets of the batch, width = 256, levels = 1 or 2.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from cores.modeling.packing import additive, pack
from cores.processing import CoresProcessor
from cores.processing.batch import Batch
from cores.scenes.kinds import PARTS
from cores.scenes.pretrain.loop import Schedule, run
from cores.scenes.pretrain.render import COLOUR_NAMES, KIND_NAMES, SIDE, Rendered
from cores.scenes.pretrain.segmenter import DIM, TokenFromBox
from cores.scenes.pretrain.tower import GRID, WIDTH, SeeingWords, pixels_of
from cores.scenes.source import Scenes
from cores.vocabulary import UNSUPERVISED
from cores.whole import whole_file

LEVELS = ("loc", "seg")  # the places of an answer's grounding tokens; LISA's form has the last alone
MIDDLE = 2  # pointing is asked for after this layer too, so that later layers can fetch what is pointed at


class Lesson(Batch):
    """A batch with two facts of each mask: which `part` it is, and whether it is of `one` object; both (masks,)."""

    part: Tensor
    one: Tensor


def llama_config(words: int) -> LlamaConfig:
    """A LLaMA for a vocabulary of so many tokens; 2.4 million parameters beside its embeddings."""
    return LlamaConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )


class Pointing(nn.Module):
    """How alike states and patches are: (masks, width) and (masks, patches, width) give logits (masks, patches)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, states: Tensor, patches: Tensor) -> Tensor:
        """Logits (masks, patches) of `states` (masks, width) and `patches` (masks, patches, width)."""
        alike: Tensor = torch.einsum("mw,mpw->mp", self.query(states), self.key(patches)) * WIDTH**-0.5
        return alike


class Answering(nn.Module):
    """Projector, language model and the readers of its states, as they are trained together."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seen: SeeingWords, token: TokenFromBox) -> None:
        super().__init__()
        self.projector = seen.projector
        self.llama = LlamaForCausalLM(llama_config(len(tokenizer)))
        words = self.llama.model.embed_tokens.weight.data
        words.normal_(0, 0.02)
        scale = 0.5  # the words' vectors were trained as classes: somewhat longer than an embedding needs to be
        for names, vectors in ((KIND_NAMES, seen.kinds), (COLOUR_NAMES, seen.colours), (PARTS, seen.parts)):
            for name, vector in zip(names, vectors, strict=False):
                for form in (name, f"{name}s", name.capitalize()):
                    number = tokenizer.convert_tokens_to_ids(form)
                    if number != tokenizer.unk_token_id:
                        words[number] = vector.data * scale
        self.points = nn.ModuleDict(
            {f"{place}{where}": Pointing() for place in ("ask", "loc", "seg") for where in ("middle", "top")}
        )
        self.point_whole = nn.ModuleDict({where: Pointing() for where in ("middle", "top")})
        self.boxes = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 8)) for _ in "ls"
        )
        self.projection = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, DIM))
        self.token = token.requires_grad_(False)

    def states(self, batch: Lesson, features: Tensor, image: int) -> tuple[Tensor, Tensor, Tensor]:
        """Middle and last states (images, tokens, width), and projected patches (images, patches, width).

        Args: `features` (images, patches, 192): the tower's; `image`: the id that stands for a patch in `input_ids`.
        """
        ids = batch["input_ids"]
        patches = self.projector(features)
        place = ids == image
        inputs = self.llama.model.embed_tokens(ids.masked_fill(place, 0))
        inputs = inputs.masked_scatter(place[..., None], patches.to(inputs.dtype))
        sight = pack(batch["segment_ids"])
        out = self.llama.model(
            inputs_embeds=inputs,
            attention_mask=additive(sight.seen, inputs.dtype),
            position_ids=sight.queries,
            output_hidden_states=True,
            use_cache=False,
        )
        return out.hidden_states[MIDDLE], out.last_hidden_state, patches

    def losses(self, batch: Lesson, features: Tensor, image: int) -> tuple[Tensor, dict[str, float]]:
        """All lessons of one batch, a scalar, and figures. Args as `states`.

        The figures: words, pointing hits (shares), box error in pixels, share of the prompt tokens left unexplained.
        """
        middle, top, patches = self.states(batch, features, image)
        labels = batch["labels"]
        keep = labels[:, 1:] != UNSUPERVISED
        logits = self.llama.lm_head(top[:, :-1][keep])
        each = F.cross_entropy(logits, labels[:, 1:][keep], reduction="none")
        # Whether a thing is there is said by an answer's first word, one of a dozen: it counts as much as all of them.
        first = (labels[:, :-1] == UNSUPERVISED)[keep]
        words = each.mean() + each[first].mean()
        figures = {"words": float(each.mean().detach()), "first": float(each[first].mean().detach())}
        row = batch["image_index"]
        if not len(row):
            return words, figures
        places = dict(zip(LEVELS[-len(batch["token_positions"]) :], batch["token_positions"], strict=True))
        seg = places["seg"]
        own = batch["segment_ids"][row] == batch["segment_ids"][row, seg][:, None]
        ask = (own & (labels[row] != UNSUPERVISED)).float().argmax(1) - 1  # the question's end
        whole = torch.stack(
            [place for place in batch["location_truth"] if place is not None]
        ).float()  # (masks, side, side)
        truth = torch.stack(batch["truth"]).float()
        share = {"loc": _share(whole), "seg": _share(truth)}
        mine = patches[row]
        pointing = words.new_zeros(())
        for where, states in (("middle", middle), ("top", top)):
            for place, at in {"ask": ask, **places}.items():
                want = "loc" if place == "loc" else "seg"
                found = self.points[place + where](states[row, at], mine)
                pointing = pointing - (share[want] * found.log_softmax(-1)).sum(-1).mean()
                if where == "top":
                    hit = share[want].gather(1, found.argmax(-1, keepdim=True)) > 0
                    figures[f"hit {place}"] = float(hit.float().mean())
            found = self.point_whole[where](states[row, ask], mine)
            pointing = pointing - (share["loc"] * found.log_softmax(-1)).sum(-1).mean()
        boxes = torch.cat([_boxes(truth), _boxes(whole)], -1)  # (masks, 8)
        one = batch["one"]  # (masks,): a single thing, not all of a kind
        error = words.new_zeros(())
        for place, at in places.items():
            reader = self.boxes[LEVELS.index(place)]
            miss = F.smooth_l1_loss(reader(top[row, at]), boxes, beta=0.05, reduction="none").mean(-1)
            error = error + (miss * one).sum() / one.sum().clamp(min=1)
        with torch.no_grad():
            zero = torch.zeros_like(boxes[:, :4])
            none = torch.full_like(batch["part"], len(PARTS))
            tokens = {
                "loc": self.token(torch.cat([boxes[:, 4:], zero, boxes[:, 4:]], -1), none)[:, 0],
                "seg": self.token(torch.cat([boxes[:, :4], zero, boxes[:, 4:]], -1), batch["part"])[:, 0],
            }
            wanted = torch.stack([tokens[place] for place in places])  # (levels, masks, DIM)
            spread = (wanted - wanted.mean(1, keepdim=True)).square().mean(-1)
        given = self.projection(torch.stack([top[row, at] for at in places.values()]))
        miss = (given - wanted).square().mean(-1)  # (levels, masks)
        unexplained = (miss * one).sum(1) / (spread * one).sum(1).clamp(min=1e-6)
        miss_px = (self.boxes[1](top[row, seg]) - boxes).detach().abs().mean(-1) * SIDE
        figures["box px"] = float((miss_px * one).sum() / one.sum().clamp(min=1))
        figures |= {f"token {place}": share for place, share in zip(places, unexplained.tolist(), strict=True)}
        return words + 0.25 * pointing + 4 * error + unexplained.sum(), figures


def _share(masks: Tensor) -> Tensor:
    """How a mask's pixels spread over the patches: (masks, side, side) to (masks, patches), rows sum to 1."""
    cells = F.adaptive_avg_pool2d(masks[:, None], GRID).flatten(1)
    return cells / cells.sum(1, keepdim=True).clamp(min=1e-6)


def _boxes(masks: Tensor) -> Tensor:
    """Left, top, right, bottom as shares of the side: (masks, side, side) to (masks, 4)."""
    columns, rows = masks.amax(1), masks.amax(2)  # (masks, side)
    side = masks.shape[-1]
    ends = [columns.argmax(1), rows.argmax(1), side - columns.flip(1).argmax(1), side - rows.flip(1).argmax(1)]
    return torch.stack(ends, -1) / side


def see_all(path: Path, seen: SeeingWords, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
    """The frozen tower's features of every picture, (scenes, patches, 192), kept in a file."""
    if not path.exists():
        shape = (len(pictures), GRID * GRID, seen.tower.config.hidden_size)
        with whole_file(path) as part, torch.no_grad():
            kept = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
            for first in range(0, len(pictures), 64):
                pixels = pixels_of(pictures[first : first + 64])
                kept[first : first + 64] = seen.tower(pixels).last_hidden_state[:, 1:].half().numpy()
            kept.flush()
    found: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return found


class Lessons:
    """Batches of scenes as the chain's processor makes them, with what else is known about their targets.

    `features`: of the same scenes, (scenes, patches, 192).
    """

    def __init__(
        self, processor: CoresProcessor, source: Scenes, data: Rendered, features: NDArray[np.float16]
    ) -> None:
        self.processor, self.source, self.data, self.features = processor, source, data, features

    def batch(self, indices: list[int], epoch: int) -> tuple[Lesson, Tensor]:
        """The batch of these scenes and their features (images, patches, 192)."""
        samples = [self.source[i] for i in indices]
        batch = self.processor.collate(samples, seed=0, epoch=epoch, indices=indices)
        part, one = [], []
        for row, truth, whole in zip(
            batch["image_index"].tolist(), batch["truth"], batch["location_truth"], strict=True
        ):
            assert whole is not None  # a scene knows where everything is
            inside = truth.numpy()
            i = indices[row]
            part.append(len(PARTS) if bool((truth == whole).all()) else int(self.data.parts[i][inside][0]))
            one.append(float(len(np.unique(self.data.objects[i][inside])) == 1))
        lesson: Lesson = {**batch, "part": torch.tensor(part), "one": torch.tensor(one)}
        order = torch.from_numpy(np.stack([self.features[i] for i in indices])).float()
        return lesson, order


@torch.no_grad()
def measure(model: Answering, lessons: Lessons, image: int) -> dict[str, float]:
    """Means of the figures of `Answering.losses` on up to 128 unseen scenes. `image`: id of image positions."""
    model.eval()
    found = []
    for first in range(0, min(128, len(lessons.source)), 16):
        chosen = range(first, min(first + 16, len(lessons.source)))
        batch, features = lessons.batch(list(chosen), epoch=0)
        found.append(model.losses(batch, features, image)[1])
    model.train()
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


def train(
    out: Path,
    model: Answering,
    lessons: Sequence[Lessons],
    unseen: Sequence[Lessons],
    image: int,
    steps: int,
    images: int = 16,
) -> None:
    """Train projector, language model and readers; `out`/llava.pt holds the state.

    `lessons`, `unseen`: of each form; a step is of one of them, in turn. `image`: id of image positions; `steps`: of
    the optimiser; `images`: of a batch.
    """

    def loss_of(number: int) -> Tensor:
        own = lessons[number % len(lessons)]
        epoch, start = divmod(number * images, len(own.source))
        chosen = [(start + k) % len(own.source) for k in range(images)]
        batch, features = own.batch(chosen, epoch)
        return model.losses(batch, features, image)[0]

    def figures() -> dict[str, float]:
        found: dict[str, float] = {}
        for number, exam in enumerate(unseen):
            form = "" if len(unseen) == 1 else f" {number}"
            found |= {f"{name}{form}": value for name, value in measure(model, exam, image).items()}
        return found

    schedule = Schedule(steps=steps, peak=1.5e-3, warmup=100, fall=0.5, every=100)
    weights = [p for p in model.parameters() if p.requires_grad]
    run(out / "llava.pt", {"model": model}, weights, schedule, loss_of, figures)
