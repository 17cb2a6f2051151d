"""Learning from rewards: rewards by hand, drawn answers in packed rows, runs that end as if never stopped."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import Squares, tiny_recipe

import cores
from cores.asking.answers import Answered
from cores.asking.asker import Asker
from cores.data.sample import Target
from cores.masks import encode
from cores.modeling.generation import teacher_force
from cores.modeling.packed_states import packed_states
from cores.modeling.sampling import Sampling
from cores.recipe import ReinforcementSection, load_recipe
from cores.scenes.source import open_scenes
from cores.training.reinforcement.collate import PolicyCollate
from cores.training.reinforcement.drawn_batch import with_drawn
from cores.training.reinforcement.rewards import overlap, reward_parts
from cores.training.reinforcement.rollout import roll_out
from cores.training.run import train


def square(left: int, width: int = 4) -> np.ndarray:
    mask = np.zeros((6, 20), dtype=bool)
    mask[1:5, left : left + width] = True
    return mask


def answer(chains: int, cut: bool = False, whole: bool = True) -> Answered:
    nothing = torch.zeros(0)
    return Answered([], 0.0, cut, [(0 if whole else None, 1)] * chains, nothing, nothing, [], [], [], 0.0)


def test_overlaps_by_hand():
    assert overlap([], []) == 1
    assert overlap([square(0, 0)], []) == 1  # an empty mask of what is not there
    assert overlap([square(0)], []) == 0
    assert overlap([], [square(0)]) == 0
    assert overlap([square(0)], [square(2)]) == pytest.approx(8 / 24)
    assert overlap([square(0), square(9)], [square(0)]) == 0.5  # one too many
    assert overlap([square(0)], [square(0), square(9)]) == 0.5  # one too few
    assert overlap([square(9), square(0)], [square(0), square(9)]) == 0  # in the other order


def test_rewards_by_hand():
    there = [Target(encode(square(2)), encode(square(0, 12)))]
    right = reward_parts(answer(1), "segmented", [square(2)], [square(0, 12)], there)
    assert right == (1, 1, 1, 1, 0)
    missed = reward_parts(answer(1, whole=False), "segmented", [square(9)], [square(0, 6)], there)
    assert missed == (0, 0, 1, 0.5, 0)
    refused = reward_parts(answer(0), "absent", [], [], there)
    assert refused == (0, 1, 0, 0, 0)
    assert reward_parts(answer(0), "absent", [], [], []) == (1, 1, 1, 1, 0)
    assert reward_parts(answer(1), "segmented", [square(2)], [square(2)], []) == (0, 1, 0, 0, 0)
    assert reward_parts(answer(0, cut=True), "text", [], [], []) == (1, 0, 0, 1, 0)
    assert right.total({"iou": 1, "form": 0.25, "refusal": 0.5, "location": 0}) == 1.75


@pytest.fixture(scope="module")
def shipped() -> cores.Cores:
    found = cores.load()
    assert isinstance(found, cores.Cores)
    return found


SECTION = ReinforcementSection(samples=3, temperature=1.5)


def test_drawn_answers_are_the_same_alone_together_and_without_kept_prefixes(shipped):
    source = open_scenes("val", 4)
    asked = [
        [("the red thing", "phrase"), ("what holds water?", "sentence")],
        [("a cup", "phrase")],
        [],
        [("x", "raw")],
    ]
    keys = [[(picture, number) for number in range(len(own))] for picture, own in enumerate(asked)]
    how = (4, Sampling(1.5, 0.95))
    asker = Asker(shipped.model, shipped.processor)
    images = asker.encode_images([source[i].image for i in range(4)])
    together = asker.draw_batch(images, asked, keys, *how)
    said = [[one.ids for one in group] for own in together for group in own]
    assert [len(own) for own in together] == [2, 1, 0, 1]
    assert len({tuple(ids) for group in said for ids in group}) > 8
    alone = []
    for image, own, names in zip(images, asked, keys, strict=True):
        for query, key in zip(own, names, strict=True):
            fresh = Asker(shipped.model, shipped.processor, questions_per_pass=1)  # reads each prefix anew
            alone += fresh.draw_batch([image], [[query]], [[key]], *how)[0]
    assert [[one.ids for one in group] for group in alone] == said
    fewer = asker.draw_batch(images, asked, keys, 2, how[1])
    assert [[one.ids for one in group] for own in fewer for group in own] == [group[:2] for group in said]


@pytest.mark.parametrize("supervised", [False, True])
def test_a_packed_row_gives_drawn_words_the_probability_that_they_were_drawn_with(shipped, supervised):
    """The training pass over many answers behind one prefix = the pass that said them, one after the other."""
    source = open_scenes("train", 3)
    collate = PolicyCollate(shipped.processor, seed=0, mask_size=None, supervised=supervised)
    batch = collate([(source[i], 0, i) for i in range(3)])
    samples, keys = batch.pop("samples"), batch.pop("keys")
    asker = Asker(shipped.model, shipped.processor)
    rolled = roll_out(asker, samples, keys, SECTION)
    drawn = with_drawn(batch, rolled, 3)
    assert drawn["counts"]["answers"] == len(rolled) > 20
    labels = drawn["labels"].flatten()
    assert (labels[drawn["supervised"] + 1] != -100).all()
    assert int((labels != -100).sum()) == len(drawn["supervised"]) == len(batch["supervised"])
    assert (len(batch["supervised"]) > 0) == supervised
    model = shipped.model
    with torch.no_grad():
        states = packed_states(
            model.mllm, drawn["input_ids"], drawn["segment_ids"], {"pixel_values": batch["pixel_values"]}
        )
        logits = model.mllm.logits(states.flatten(0, 1)[drawn["drawn"]["places"]])
    words = drawn["drawn"]["words"]
    sure = logits.log_softmax(-1).gather(1, words[:, None])[:, 0].split([len(one.answer) for one in rolled])
    images = asker.encode_images([sample.image for sample in samples])
    for one, own in list(zip(rolled, sure, strict=True))[::7]:
        turn = next(
            c.turns[0]
            for c in samples[one.row].conversations
            if shipped.processor.question(c.turns[0].query, c.turns[0].form).tolist() == one.question
        )
        text = shipped.processor.tokenizer.decode(one.answer)
        (prefix,) = asker.encoding.prefixes_of([images[one.row]])
        (said,) = teacher_force(model, [prefix], [torch.tensor(one.question)], [torch.tensor(one.answer)], [2])
        assert torch.allclose(said.sure, own, atol=1e-4), (turn.query, text)


def test_advantages_are_of_each_question_alone(shipped):
    source = open_scenes("train", 2)
    rolled = roll_out(Asker(shipped.model, shipped.processor), [source[0], source[1]], [(0, 0, 0), (0, 0, 1)], SECTION)
    for first in range(0, len(rolled), SECTION.samples):
        group = rolled[first : first + SECTION.samples]
        assert len({tuple(one.question) for one in group}) == 1
        assert sum(one.advantage for one in group) == pytest.approx(0, abs=1e-9)
        best = max(group, key=lambda one: one.reward)
        assert best.advantage == max(one.advantage for one in group)


def losses(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    kept = ("loss", "reward", "reward_iou", "policy_loss", "policy_kl", "policy_cut", "grad_norm")
    return [{name: line[name] for name in kept if name in line} for line in lines if "loss" in line]


SETTINGS = {
    "reinforcement__samples": 3,
    "losses__text": 0,
    "trainer__save_steps": 1,
    "trainer__save_strategy": "steps",
}


@pytest.mark.parametrize("more", [{}, {"reinforcement__updates": 2, "reinforcement__supervised": "true"}])
def test_a_run_that_was_stopped_ends_as_if_it_had_not(tmp_path, more):
    recipe = tiny_recipe(tmp_path, **SETTINGS, **more)
    whole = train(recipe, tmp_path / "whole", Squares, device="cpu", quiet=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-4")
    again = train(recipe, tmp_path / "again", Squares, device="cpu", quiet=True, resume=True)
    for (name, one), (_, other) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    found = losses(tmp_path / "whole")
    assert found == losses(tmp_path / "again")
    assert len(found) == 4
    assert all("reward_iou" in line and "policy_kl" in line for line in found)
    assert found[0]["policy_kl"] == pytest.approx(0, abs=1e-6)
    assert found[-1]["policy_kl"] > 0


def test_the_recipe_says_what_cannot_be(tmp_path):
    with pytest.raises(cores.RecipeError, match="samples: found 1"):
        tiny_recipe(tmp_path, reinforcement__samples=1)
    with pytest.raises(cores.RecipeError, match=r"rewards: found iou"):
        tiny_recipe(tmp_path, reinforcement__samples=4, reinforcement__rewards="{iou: 1}")
    assert "reinforcement" not in tiny_recipe(tmp_path).to_dict()
    again = load_recipe("tiny-grpo")
    assert again.to_dict()["reinforcement"]["samples"] == 8


@pytest.mark.slow
def test_two_processes_draw_and_learn_what_one_does(tmp_path):
    """Half the pictures each: the same answers, the same steps."""
    settings = [
        "data.questions_per_image=2",
        "trainer.max_steps=3",
        "trainer.eval_strategy=no",
        "evaluation.sources=[]",
    ]
    settings += ["reinforcement.samples=3", "reinforcement.temperature=1.5", "trainer.learning_rate=1e-3"]
    command = ["-m", "cores", "train", "tiny-grpo", *settings, "--device", "cpu", "--quiet", "--out"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29524"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, launcher, pictures in (("one", [], 2), ("two", torchrun, 1)):
        each = f"trainer.per_device_train_batch_size={pictures}"
        whole = [sys.executable, *launcher, *command, str(tmp_path / name), each]
        done = subprocess.run(whole, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [sorted(line) for line in one] == [sorted(line) for line in two]
    for line, other in zip(one, two, strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-7)
    assert any(line["policy_kl"] > 0 for line in two)


def test_what_does_not_go_with_drawn_answers_is_refused(tmp_path):
    for setting in ({"trainer__fsdp": "fsdp2"}, {"trainer__deepspeed": "zero2"}, {"data__features": "kept"}):
        with pytest.raises(cores.RecipeError, match="reinforcement: "):
            tiny_recipe(tmp_path, reinforcement__samples=4, **setting)
