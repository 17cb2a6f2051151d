"""Answers drawn by the model that trains, to the questions of a batch, and what each of them is worth.

Every answer's chance hangs on the run's seed, the picture's draw and the question alone, so that a resumed run draws
the same, on any number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cores.asking.answers import Answered
from cores.asking.asker import Asker
from cores.asking.image_encoding import EncodedImage
from cores.data.sample import Sample, Turn
from cores.modeling.policy import advantages
from cores.modeling.sampling import Sampling
from cores.recipe import ReinforcementSection
from cores.training.reinforcement.rewards import Parts, reward_parts

Key = tuple[int, ...]  # seed, epoch and index of a sample: what its answers' chances hang on


@dataclass(frozen=True, slots=True)
class Rolled:
    """One drawn answer. `row`: its picture's number in the batch; `question`, `answer`: ids, what closes it and a
    thought before it included; `advantage`: how much better than its group it is; `parts`, `reward`: what it is worth;
    `chosen`: places in `answer` of the words that the model chose, which are all but a thought's marks; `behind`: how
    many of them are the thought."""

    row: int
    question: list[int]
    answer: list[int]
    advantage: float
    parts: Parts
    reward: float
    chosen: tuple[int, ...]
    behind: int = 0


def roll_out(
    asker: Asker, samples: Sequence[Sample], keys: Sequence[Key], section: ReinforcementSection
) -> list[Rolled]:
    """Draw `section.samples` answers to every question of some pictures that a mask or a refusal answers.

    Turns behind others are left out: what stands before them is not the model's own.
    """
    asked = [_questions(sample) for sample in samples]
    queries = [[(turn.query, turn.form) for turn in own] for own in asked]
    chances = [[(*key, number) for number in range(len(own))] for key, own in zip(keys, asked, strict=True)]
    images = asker.encode_images([sample.image for sample in samples])
    sampling = Sampling(section.temperature, section.top_p)
    told = asker.draw_batch(images, queries, chances, section.samples, sampling)
    found: list[Rolled] = []
    for row, (image, own, answers) in enumerate(zip(images, asked, told, strict=True)):
        for turn, group in zip(own, answers, strict=True):
            found += _group(asker, image, row, turn, group, section)
    return found


def _questions(sample: Sample) -> list[Turn]:
    first = [one.turns[0] for one in sample.conversations if one.turns]
    return [turn for turn in first if turn.targets or turn.answer is None]


def _group(
    asker: Asker,
    image: EncodedImage,
    row: int,
    turn: Turn,
    answers: Sequence[Answered],
    section: ReinforcementSection,
) -> list[Rolled]:
    parts = []
    for answer in answers:
        levels = [[full.mask for full in asker.full_size(image, logits)] for logits in answer.low_res_logits]
        worth = reward_parts(answer, asker.read(answer).status, levels[-1], levels[0], turn.targets)
        parts.append(worth._replace(thought=answer.thought.length / section.think) if section.think else worth)
    rewards = [one.total(section.rewards) - section.think_cost * one.thought for one in parts]
    better = advantages(torch.tensor([rewards], dtype=torch.double), section.scaled)[0].tolist()
    question, closing = asker.processor.question(turn.query, turn.form).tolist(), asker.processor.closing
    found = []
    for answer, advantage, part, reward in zip(answers, better, parts, rewards, strict=True):
        ids = [*answer.ids, *([] if answer.cut else closing)]
        before = len(answer.thought.ids)
        chosen = (*range(*answer.thought.chosen), *range(before, before + len(ids)))
        found.append(Rolled(row, question, [*answer.thought.ids, *ids], advantage, part, reward, chosen, before))
    return found
