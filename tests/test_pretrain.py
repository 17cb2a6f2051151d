"""The stages of pretraining run, resume as if they had not stopped, and end with bases that a recipe takes."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cores.checkpoints.runs.bases import load_parts
from cores.checkpoints.runs.origin import Base
from cores.scenes.pretrain import mllm, segmenter, tower
from cores.scenes.pretrain import stages as run
from cores.scenes.pretrain.render import Rendered, bounds, render
from cores.scenes.source import open_scenes

FEW = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(tmp_path_factory.mktemp("scenes"), 1_000_000, FEW)


def test_what_is_drawn_ahead_is_the_source_itself(data: Rendered) -> None:
    scene = open_scenes("train").scene(3)
    assert (data.objects[3] == scene.objects).all()
    for number, thing in enumerate(scene.things):
        for slot, part in enumerate([None, *(p.name for p in thing.kind.parts)]):
            mask = scene.mask(number, part)
            assert data.areas[3, number, slot] == mask.sum()
            if mask.any():
                assert tuple(data.boxes[3, number, slot]) == bounds(mask)


@pytest.mark.parametrize("stage", [tower, segmenter])
def test_a_stopped_stage_goes_on_as_if_it_had_not(stage, data: Rendered, tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    train = partial(stage.train, data=data, unseen=data, images=4)
    train(tmp_path / "whole", steps=2)
    (state,) = (tmp_path / "whole").glob("*.pt")
    kept = torch.load(state, weights_only=True)
    assert kept["step"] == 2
    # a run that ended after one of two steps: the same schedule, so its state is made by hand from a shorter loop
    import cores.scenes.pretrain.loop as loop

    losses, real = [], loop.Schedule.rate

    def stop_after_one(self: loop.Schedule, number: int) -> float:
        losses.append(number)
        if number == 1 and len(losses) == 2:
            raise KeyboardInterrupt
        return real(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Schedule, "rate", stop_after_one)
        patch.setattr(stage, "Schedule", lambda **fields: loop.Schedule(**fields | {"every": 1}))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped", steps=2)
        train(tmp_path / "stopped", steps=2)
    again = torch.load(tmp_path / "stopped" / state.name, weights_only=True)
    assert losses == [0, 1, 1]
    for name, value in kept["model"].items():
        assert torch.equal(value, again["model"][name]), name


def test_the_stages_end_with_bases_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "UNSEEN", FEW)
    monkeypatch.setattr(run, "train_tower", partial(tower.train, images=4))
    monkeypatch.setattr(run, "train_segmenter", partial(segmenter.train, images=2))
    run.run_stages(tmp_path, ("tower", "segmenter", "llava"), scenes=FEW, steps=1, styles=("paper", "lisa"))
    parts = load_parts(Base({"bases": str(tmp_path / "bases")}))
    seen = torch.load(tmp_path / "tower.pt", weights_only=True)["model"]
    held = parts.mllm.model.vision_tower.state_dict()
    assert all(
        torch.equal(held[name.removeprefix("tower.")], v) for name, v in seen.items() if name.startswith("tower.")
    )
    assert parts.projection is not None


def test_lessons_of_two_forms_take_turns(tmp_path: Path, data: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scenes, asked in both forms: a step of the chain's two tokens, then one of LISA's, which is alone."""
    processor = run.tiny_processor()
    scenes = open_scenes("train", n=FEW)
    features = np.zeros((FEW, tower.GRID**2, 192), np.float16)
    forms = [run.tiny_processor(processor.tokenizer, style) for style in ("paper", "lisa")]
    lessons = [mllm.Lessons(form, scenes, data, features) for form in forms]
    model = mllm.Answering(processor.tokenizer, tower.SeeingWords(), segmenter.TokenFromBox())
    levels, losses = [], model.losses

    def watched(batch: mllm.Lesson, *args: object) -> object:
        levels.append(len(batch["token_positions"]))
        return losses(batch, *args)

    monkeypatch.setattr(model, "losses", watched)
    mllm.train(tmp_path, model, lessons, lessons, processor.sizes.image_token_id, steps=3, images=2)
    assert levels[:3] == [2, 1, 2]
