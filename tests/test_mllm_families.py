"""What every family of multimodal LLMs keeps: packed equals separate, cached equals uncached, and the picture is seen.

Truth is the family's own run of one question at a time, with its own masks and positions and without a cache.
"""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_config
from tiny_families import FAMILIES, IMAGE, Tiny, image_tokens, joined, native, noisy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cores.checkpoints.runs.bases import draw_rows
from cores.checkpoints.shapes import shapes_of
from cores.errors import CheckpointError
from cores.modeling import CoresConfig, CoresModel, packed_attention
from cores.modeling.generation import generate, teacher_force
from cores.modeling.mllms import check_family
from cores.modeling.packed_states import packed_states
from cores.modeling.prefix_cache import read_prefix
from cores.recipe import LoraSection
from cores.training.ranks import end_at_once, leave
from cores.training.trainable import choose_parts

EXACT = 1e-5  # of the largest number
STEPPED = {"qwen3_5": 5e-5}  # its delta rule is computed in chunks, and token by token from a cache
LENGTHS = ((9, 4, 12), (3, 11, 5))  # of three questions about each of two pictures of different sizes
NO_FLEX = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v"}  # their own classes refuse it


def text(length: int, seed: int) -> Tensor:
    return torch.randint(3, 80, (length,), generator=torch.Generator().manual_seed(seed))


def assert_equal(found: Tensor, expected: Tensor, exact: float = EXACT) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= exact * expected.abs().max()


def prefix_of(model, picture, number: int) -> Tensor:
    count = image_tokens(model, picture)
    return torch.cat([text(3 + 2 * number, 40 + number), torch.full((count,), IMAGE), text(2, 50 + number)])


def packed(prefixes: list[Tensor], questions: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    rows = [torch.cat([prefix, *own]) for prefix, own in zip(prefixes, questions, strict=True)]
    longest = max(map(len, rows))
    ids, segments = torch.zeros(2, longest, dtype=torch.long), torch.full((2, longest), -1)
    for row, (prefix, own) in enumerate(zip(prefixes, questions, strict=True)):
        ids[row, : len(rows[row])] = rows[row]
        parts = [torch.full((len(part),), number) for number, part in enumerate([prefix, *own])]
        segments[row, : len(rows[row])] = torch.cat(parts)
    return ids, segments


class Case:
    """A tiny model of a family with two pictures, their prefixes and three questions about each."""

    def __init__(self, tiny: Tiny, attention: str = "sdpa") -> None:
        self.tiny, self.model = tiny, tiny.build(attention)
        self.pictures = [tiny.picture(0), tiny.picture(1)]
        with torch.no_grad():
            self.prefixes = [prefix_of(self.model, p, n) for n, p in enumerate(self.pictures)]
        self.questions = [[text(n, 10 * row + n) for n in own] for row, own in enumerate(LENGTHS)]
        self.ids, self.segments = packed(self.prefixes, self.questions)

    def alone(self, picture: int, question: Tensor) -> Tensor:
        ids = torch.cat([self.prefixes[picture], question])
        return native(self.model, self.tiny.kinds, ids, self.pictures[picture])

    def states(self) -> Tensor:
        return packed_states(self.model, self.ids, self.segments, joined(self.pictures))


class Chain:
    """What generation reads of a model: its language model."""

    def __init__(self, mllm) -> None:
        self.mllm = mllm


@pytest.mark.parametrize("attention", ["sdpa", "sdpa by conversations", "eager", "flex_attention"])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:flex_attention called without")  # torch's own
@torch.no_grad()
def test_packed_equals_separate(name: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attention, _, by_conversations = attention.partition(" ")
    if by_conversations:
        monkeypatch.setattr(packed_attention, "SAVES", 0)  # whatever it saves
    if attention == "flex_attention" and name in NO_FLEX:
        with pytest.raises(ValueError, match="does not support an attention implementation through torch's flex"):
            Case(FAMILIES[name], attention)
        return
    case = Case(FAMILIES[name], attention)
    with torch.compiler.set_stance("force_eager"):  # flex attention is compiled otherwise, for a minute
        states = case.states()
    if attention == "flex_attention":
        case = Case(FAMILIES[name])
    assert states.isfinite().all()
    for row, own in enumerate(case.questions):
        for number, question in enumerate(own, 1):
            expected = case.alone(row, question)[len(case.prefixes[row]) :]
            assert_equal(states[row][case.segments[row] == number], expected)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_cached_equals_uncached(name: str) -> None:
    case, exact = Case(FAMILIES[name]), STEPPED.get(name, EXACT)
    for row, (picture, prefix) in enumerate(zip(case.pictures, case.prefixes, strict=True)):
        cache = [read_prefix(Chain(case.model), picture, prefix)] * 3
        said = generate(Chain(case.model), cache, case.questions[row], [2], 4)
        forced = teacher_force(Chain(case.model), cache, case.questions[row], [text(5, 7)] * 3, [2])
        for question, one, given in zip(case.questions[row], said, forced, strict=True):
            expected = case.alone(row, torch.cat([question, text(5, 7)]))
            assert_equal(given.states, expected[len(prefix) + len(question) - 1 : -1], exact)
            ids = question
            for state in one.states:  # greedy, everything computed anew at every step
                alone = case.alone(row, ids)[-1]
                assert_equal(state, alone, exact)
                ids = torch.cat([ids, case.model.logits(alone[None]).argmax(-1)])
            assert one.ids == [number for number in ids[len(question) :].tolist() if number != 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava", "gemma3"])  # one mask for all layers; one a kind of layer
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@torch.no_grad()
def test_compiled_flex_attention_is_eager_attention(name: str) -> None:
    """Of one length: for changing lengths torch's compiler for CPUs writes C++ that does not compile."""
    torch.compiler.reset()
    case = Case(FAMILIES[name], "flex_attention")
    assert_equal(case.states()[case.segments >= 0], Case(FAMILIES[name], "eager").states()[case.segments >= 0])
    torch.compiler.reset()


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_two_turn_chat(name: str) -> None:
    """A second question goes on behind the first one and its answer: generated, teacher-forced and packed alike."""
    case, exact = Case(FAMILIES[name]), STEPPED.get(name, EXACT)
    firsts, chats = [own[0] for own in case.questions], []
    for row, (picture, prefix) in enumerate(zip(case.pictures, case.prefixes, strict=True)):
        cache = [read_prefix(Chain(case.model), picture, prefix)]
        (answer,) = generate(Chain(case.model), cache, [firsts[row]], [2], 3)
        chat = torch.cat([firsts[row], torch.tensor([*answer.ids, 2]), case.questions[row][1]])
        (again,) = generate(Chain(case.model), cache, [chat], [2], 3)
        ids = chat
        for state in again.states:
            alone = case.alone(row, ids)[-1]
            assert_equal(state, alone, exact)
            ids = torch.cat([ids, case.model.logits(alone[None]).argmax(-1)])
        (given,) = teacher_force(Chain(case.model), cache, [chat], [text(5, 7)], [2])
        expected = case.alone(row, torch.cat([chat, text(5, 7)]))[len(prefix) :]
        assert_equal(given.states, expected[len(chat) - 1 : -1], exact)
        otherwise = chat.clone()
        otherwise[0] = 4 if chat[0] == 3 else 3
        moved = case.alone(row, otherwise)[-1] - case.alone(row, chat)[-1]
        assert moved.norm() > 0, "the second question hears the first"
        chats.append(torch.cat([chat, text(5, 7)]))
    ids, segments = packed(case.prefixes, [[chat, own[2]] for chat, own in zip(chats, case.questions, strict=True)])
    states = packed_states(case.model, ids, segments, joined(case.pictures))
    for row, chat in enumerate(chats):
        assert_equal(states[row][segments[row] == 1], case.alone(row, chat)[len(case.prefixes[row]) :])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_layer_finishes_what_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same states and gradients as where all of them are finished; made again for gradients, too."""
    monkeypatch.setattr(packed_attention, "SAVES", 0)
    case, model = Case(FAMILIES[name]), model_of(name).train()
    choose_parts(model, ["lora", "embeddings"], LoraSection(targets=list(FAMILIES[name].lora), dropout=0.0))
    noisy_adapters(model)
    learned = [p for p in model.mllm.parameters() if p.requires_grad]
    inside = len(case.prefixes[0]) - 1  # a prefix's last token, which predicts the first of a conversation
    beyond = case.ids.shape[1] + len(case.prefixes[1])  # the second picture's first conversation
    ways = [torch.tensor([beyond + 5, inside + 4, inside + 9, inside + 9]), torch.tensor([inside, inside + 2, beyond])]

    def run(places: Tensor, reads: Tensor | None) -> list[Tensor | None]:
        states = packed_states(model.mllm, case.ids, case.segments, joined(case.pictures), reads)
        states = states.flatten(0, 1).index_select(0, places)
        total = (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum()
        return [states, *torch.autograd.grad(total, learned, allow_unused=True)]

    whole, alone = [run(places, None) for places in ways], [run(places, places) for places in ways]
    model.activation_checkpointing_enable()
    alone += [run(places, places) for places in ways]
    for found, expected in zip(alone, whole * 2, strict=True):
        for mine, its in zip(found, expected, strict=True):
            assert (mine is None) == (its is None)
            if mine is not None and its is not None:
                assert_equal(mine, its)


def test_the_last_layer_does_nothing_for_what_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_attention, "SAVES", 0)
    case, model = Case(FAMILIES["llava"]), model_of("llava")
    layer, seen = model.mllm.get_decoder().layers[-1], []
    for part in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp):
        part.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    packed_states(model.mllm, case.ids, case.segments, joined(case.pictures), torch.tensor([20, 20, 31]))
    copy.deepcopy(model)  # what is left of a pass can be copied
    packed_states(model.mllm, case.ids, case.segments, joined(case.pictures))
    assert seen == [2] * 3 + [case.ids.numel()] * 3


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_another_picture_changes_the_states(name: str) -> None:
    case = Case(FAMILIES[name])
    before = case.states()
    for picture in case.pictures:
        picture["pixel_values"] = picture["pixel_values"].flip(-1) * 0.5
    after = case.states()
    for number in (1, 2, 3):
        moved = (before - after)[case.segments == number].norm(dim=-1)
        assert (moved > 1e-3 * before[case.segments == number].norm(dim=-1)).all()


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_logits_are_the_familys_own(name: str) -> None:
    case = Case(FAMILIES[name])
    picture, tiny = case.pictures[0], FAMILIES[name]
    ids = torch.cat([case.prefixes[0], case.questions[0][0]])
    said = {} if tiny.kinds is None else {tiny.kinds: (ids == IMAGE).long()[None]}
    try:
        own = case.model(input_ids=ids[None], **picture, **said, use_cache=False).logits[0]
    except AttributeError as error:
        pytest.skip(f"transformers' own forward fails: {error}")
    assert_equal(case.model.logits(case.alone(0, case.questions[0][0])), own)


def model_of(name: str, **changes) -> CoresModel:
    """A CoReS of a family and a tiny SAM."""
    segmenter = tiny_config().segmenter_config
    config = CoresConfig(mllm_config=FAMILIES[name].make_config(**changes), segmenter_config=segmenter)
    for number, level in enumerate(config.levels):
        level["token_id"] = 90 + number
    return noisy(CoresModel(config))


def batch_of(case: Case) -> dict:
    """A training batch of a case: a mask for each picture's first and last conversation."""
    pixels = joined(case.pictures)
    labels = case.ids.masked_fill(case.segments < 1, -100)
    rows, places = torch.tensor([0, 0, 1, 1]), []
    for row, number in ((0, 1), (0, 3), (1, 1), (1, 3)):
        places.append((case.segments[row] == number).nonzero()[-2:, 0])
    truth = [torch.rand(40, 30, generator=torch.Generator().manual_seed(n)) > 0.6 for n in range(4)]
    return {
        "input_ids": case.ids,
        "segment_ids": case.segments,
        "labels": labels,
        "pixel_values": pixels.pop("pixel_values"),
        "pixel_extras": pixels,
        "segmenter_pixels": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(9)),
        "token_positions": torch.stack(places, dim=1),
        "image_index": rows,
        "truth": truth,
        "location_truth": truth,
        "ignore": [None, None],
        "sizes": [(40, 30), (40, 30)],
        "resized": [(64, 48), (64, 48)],
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_reach_what_trains_and_nothing_else(name: str) -> None:
    batch = batch_of(Case(FAMILIES[name]))
    model = model_of(name).train()
    targets = list(FAMILIES[name].lora)
    parts = ["lora", "embeddings", "head", "projector", "projection", "refiner", "mask_decoder"]
    choose_parts(model, parts, LoraSection(targets=targets, dropout=0.0))
    adapted = [module for module, _ in model.named_modules() if module.endswith("lora_B.default")]
    assert adapted
    assert all("vis" not in module for module in adapted)
    noisy_adapters(model)
    model(**batch).loss.backward()
    first = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    missing = {key for key, p in model.named_parameters() if p.requires_grad} - first.keys()
    # a router's choice may leave an expert out, and an architecture's layers below the picture's last have no gradient
    assert not {key for key in missing if "expert" not in key}
    assert not {key for key in first if ".visual.blocks" in key or "vision_tower" in key or "vision_model" in key}

    model.zero_grad()
    model.activation_checkpointing_enable()
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.mllm.modules())
    model(**batch).loss.backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert_equal(parameter.grad, first[key], 1e-4)


def noisy_adapters(model: CoresModel) -> None:
    """LoRA begins at zero, where half of its gradients are zero."""
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            parameter.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(key)))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_loaded_strictly(name: str, tied: bool, tmp_path: Path) -> None:
    model = model_of(name, tie_word_embeddings=tied).eval()
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    draw_rows(model.mllm, 104, [100, 103])
    model.save_pretrained(tmp_path)
    again = CoresModel.from_pretrained(tmp_path).eval()
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == (
        head.weight is table.weight
    )
    state = again.state_dict()
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    case = Case(FAMILIES[name])
    case.ids[case.segments == 2] = 103  # a word that is new
    with torch.no_grad():
        one, other = (packed_states(m.mllm, case.ids, case.segments, joined(case.pictures)) for m in (model, again))
    assert torch.equal(one, other)
    assert len(again.mllm.logits(other[0])[0]) == 104
    assert shapes_of(again.config).keys() <= state.keys()


def train_together(rank: int, meeting: str) -> None:
    """One of two processes: a step of every family; the gradients are the mean of both processes' own."""
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for name, tiny in FAMILIES.items():
        batch = batch_of(Case(tiny))
        model = model_of(name).train()
        parts = ["lora", "embeddings", "head", "projector", "projection", "refiner", "mask_decoder"]
        choose_parts(model, parts, LoraSection(targets=list(tiny.lora), dropout=0.0))
        noisy_adapters(model)
        batch["segmenter_pixels"] *= 1 + rank  # what this process sees
        model(**batch).loss.backward()
        own = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        together = DistributedDataParallel(model, find_unused_parameters=True)
        together(**batch).loss.backward()
        for key, parameter in model.named_parameters():
            if key in own:
                torch.distributed.all_reduce(own[key])
                assert_equal(parameter.grad, own[key] / 2, 1e-4)
        del together, model  # while the reducer lives, gloo may wait for it for ever
    torch.distributed.barrier()
    leave()
    end_at_once(0)


def test_a_step_in_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train_together, (str(tmp_path / "meeting"),), nprocs=2)


def test_a_picture_that_sees_the_question_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'paligemma' cannot be used: its picture sees the question"):
        check_family("paligemma")
    with pytest.raises(CheckpointError, match="'bert' cannot be used: expected one of llava, vipllava"):
        check_family("bert")


def test_families_load_when_they_are_asked_for() -> None:
    code = (
        "import sys, cores.modeling.mllms; print([n for n in sys.modules if n.startswith('transformers.models.qwen')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
