"""Words drawn by chance: by their probabilities, from the nucleus, the same in whatever company."""

import numpy as np
import pytest
import torch

from cores.errors import UserError
from cores.inference.segmentation import Level, Segmentation, TargetMask
from cores.inference.voting import agreement, joined, vote
from cores.masks import encode
from cores.modeling.sampling import Sampling, draw, sampler

SHARES = torch.tensor([0.1, 0.5, 0.05, 0.35])


def shares_of(sampling: Sampling, draws: int = 20_000) -> torch.Tensor:
    chance = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    words = draw(SHARES.log().expand(draws, -1), chance, sampling)
    return torch.bincount(words, minlength=4) / draws


def test_words_are_drawn_as_often_as_they_are_likely():
    assert torch.allclose(shares_of(Sampling()), SHARES, atol=1e-4)
    assert torch.allclose(shares_of(Sampling(temperature=0.5)), SHARES**2 / (SHARES**2).sum(), atol=1e-4)


@pytest.mark.parametrize(
    ("top_p", "words"), [(1e-9, [1]), (0.49, [1]), (0.51, [1, 3]), (0.85, [1, 3]), (0.86, [0, 1, 3])]
)
def test_only_the_nucleus_is_drawn_from(top_p, words):
    found = shares_of(Sampling(top_p=top_p))
    assert found.nonzero()[:, 0].tolist() == words
    kept = torch.zeros(4).index_copy(0, torch.tensor(words), SHARES[words])
    assert torch.allclose(found, kept / kept.sum(), atol=1e-4)


def test_rounding_changes_no_word():
    """Of words that are alike but for it, as those are that a model never learned."""
    alike = torch.randn(2000, 12, generator=torch.Generator().manual_seed(0)).repeat(1, 8)
    noise = 1e-6 * torch.randn(alike.shape, generator=torch.Generator().manual_seed(1))
    chance = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    same = draw(alike, chance, Sampling()) == draw(alike + noise, chance, Sampling())
    assert same.double().mean() > 0.999


def test_an_answer_draws_the_same_in_whatever_company():
    rows = torch.randn(50, 6, 30, generator=torch.Generator().manual_seed(0)).log_softmax(-1)  # steps, answers, words
    keys = [(3, 7, question, sample) for question in range(2) for sample in range(3)]
    together, chosen = sampler(Sampling(0.9, 0.95), keys), []
    for step in rows:
        chosen.append(together(step, range(6)))
    for number, key in enumerate(keys):
        alone = sampler(Sampling(0.9, 0.95), [key])
        assert [int(alone(step[[number]], [0])) for step in rows] == [int(words[number]) for words in chosen]
    assert len({tuple(int(words[number]) for words in chosen) for number in range(6)}) == 6


def test_a_very_small_temperature_takes_the_likeliest_word():
    likely = torch.tensor([[-3.0, -0.1, -2.5]])
    for temperature in (1e-300, 1e-309, 5e-324):
        assert draw(likely, torch.tensor([0.5], dtype=torch.float64), Sampling(temperature)).tolist() == [1]


def test_without_temperature_nothing_is_drawn():
    assert sampler(Sampling(temperature=0), [1]) is None
    for wrong in ({"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sampling(**wrong)


def answer(columns: int, size: tuple[int, int] = (2, 6)) -> Segmentation:
    """One that points at the first columns of a picture; at nothing for none."""
    mask = np.zeros(size, dtype=bool)
    mask[:, :columns] = True
    level = Level("target", encode(mask), 1.0, np.where(mask, 2.0, -2.0).astype(np.float32), 6, size, "pad")
    targets = (TargetMask("it", (level,), confidence=columns / 10),) if columns else ()
    status = "segmented" if columns else "absent"
    return Segmentation(query="?", answer="", text="", status=status, size=size, targets=targets, score=0.0, tokens=1)


def test_a_vote_takes_the_pixels_that_most_answers_have():
    assert vote([answer(2)]).sum() == 4
    assert vote([answer(2), answer(4)]).sum() == 4  # more than half
    assert vote([answer(2), answer(4), answer(5)]).sum() == 8
    assert vote([answer(6), answer(0), answer(0)]).sum() == 0  # most refuse
    for wrong in ([], [answer(1), answer(1, (2, 7))]):
        for way in (vote, joined):
            with pytest.raises(UserError, match="vote: found answers about"):
                way(wrong)


def test_joined_answers_are_one_answer_whose_mask_is_the_vote():
    assert joined([answer(3)]) == answer(3)
    assert joined([answer(0), answer(6), answer(0)]) == answer(0)
    assert joined([answer(0), answer(6)]) == answer(0)  # a half is not most
    for columns in ([2, 4], [2, 4, 5], [0, 3, 4], [1, 0, 6, 6], [5, 1, 0, 3, 2, 2, 0, 6]):
        answers = [answer(number) for number in columns]
        found = joined(answers)
        (target,) = found.targets
        (level,) = target.levels
        assert np.array_equal(found.mask, vote(answers))
        assert np.array_equal(level.low_res > 0, found.mask)
        shares = [sum(number > place for number in columns) / len(columns) for place in range(6)]
        assert level.score == pytest.approx(np.mean([share for share in shares if share > 0.5]))
        assert target.confidence == pytest.approx(np.mean([number / 10 for number in columns if number]))


def test_answers_agree_that_point_at_the_same_thing():
    answers = [answer(number) for number in (4, 4, 3, 1, 0)]
    assert agreement(answers, answer(4).mask) == 3 / 5
    assert agreement(answers, answer(0).mask) == 1 / 5
