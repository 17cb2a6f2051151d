"""Instruct models in a hub's layout as speakers: random ones, whose answers nobody understands."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_bases import BUILT, write_mllm, write_segmenter

import cores
from cores.errors import CheckpointError, UserError
from cores.words.grounding import GROUNDING
from cores.words.hub_speaker import HubSpeaker
from cores.words.load import load_speaker

CPU = torch.device("cpu")


def picture(seed: int = 0, size: tuple[int, int] = (45, 90)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=sorted(GROUNDING.keys() & set(BUILT)))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mllm(request.param, tmp_path_factory.mktemp(request.param) / "mllm")


def test_an_answer_is_the_model_s_own_one_token_at_a_time(folder: Path) -> None:
    """A whole forward for each token: no cache, positions as the family counts them."""
    speaker = load_speaker(str(folder), CPU, torch.float32)
    assert isinstance(speaker, HubSpeaker)
    look, model = speaker.look(picture()), speaker.model
    (said,) = speaker.ask(look, ["where?"], 8)
    ids, pixels = speaker.ids(look, "where?")[None], speaker.rule.batch([look.held])
    start, chances = ids.shape[1], []
    while len(chances) < 8 and int(ids[0, -1]) not in speaker.ends:
        kinds = {"mm_token_type_ids": (ids == model.config.image_token_id).int()}
        takes = "mm_token_type_ids" in inspect.signature(model.forward).parameters
        with torch.no_grad():
            logits = model(input_ids=ids, **(kinds if takes else {}), **pixels, use_cache=False).logits
        ranked = logits[0, -1].log_softmax(-1)
        ranked[model.config.image_token_id] = -torch.inf  # is never said
        best, token = ranked.max(-1)
        chances.append(float(best))
        ids = torch.cat([ids, token[None, None]], 1)
    told = [number for number in ids[0, start:].tolist() if number not in speaker.ends]
    assert said.text == speaker.tokenizer.decode(told).strip()
    assert said.score == pytest.approx(sum(chances) / len(chances), abs=1e-4)
    assert said.cut is (int(ids[0, -1]) not in speaker.ends)
    (other,) = speaker.ask(speaker.look(picture(1)), ["where?"], 8)
    assert abs(other.score - said.score) > 1e-5, "the picture is seen"


def test_pixels_are_those_of_the_picture_as_the_model_saw_it(tmp_path: Path) -> None:
    speaker = load_speaker(str(write_mllm("qwen2_5_vl", tmp_path)), CPU, torch.float32)
    look = speaker.look(picture())
    assert (look.size, look.resized) == ((45, 90), (16, 32))
    assert int((speaker.ids(look, "where?") == speaker.model.config.image_token_id).sum()) == 4 * 8 // 4  # type: ignore[attr-defined]


def test_drawn_answers_depend_on_their_number_alone(folder: Path) -> None:
    speaker = load_speaker(str(folder), CPU, torch.float32)
    look = speaker.look(picture())
    first, again = (speaker.ask(look, ["where?", "who?"], 8, draw=1) for _ in range(2))
    assert first == again
    assert speaker.ask(look, ["who?"], 8, draw=1) == first[1:]
    assert speaker.ask(look, ["where?"], 8, draw=2) != first[:1]


def test_what_cannot_be_read_is_asked_once_again_and_then_is_text(folder: Path, tmp_path: Path) -> None:
    write_segmenter("sam2", tmp_path / "sam")
    model = cores.load(f"words:{folder}+{tmp_path / 'sam'}", device="cpu")
    (found,) = model.segment(picture(), ["the handle"], max_new_tokens=4)
    assert (found.status, found.targets, found.cut, found.tokens) == ("text", (), True, 8)
    assert found.answer.count(" -> ") == 1
    speaker = load_speaker(str(folder), CPU, torch.float32)
    row = speaker.grounding
    first = row.locate.format(query="the handle")
    asked = speaker.ask(speaker.look(picture()), [first, f"{first} {row.again}"], 4)
    assert found.answer == " -> ".join(" ".join(said.text.split()) for said in asked)
    (plain,) = model.segment(picture(), ["the handle"], form="raw", max_new_tokens=4)
    assert (plain.status, " -> " in plain.answer) == ("text", False), "text is an answer to a raw question"
    with pytest.raises(UserError, match="samples: answers in words are not drawn: leave it out, or set `votes`"):
        model.segment(picture(), ["the handle"], samples=2)


def test_a_model_without_chat_template_or_with_half_its_weights_is_refused(tmp_path: Path) -> None:
    folder = write_mllm("qwen3_vl", tmp_path / "mllm")
    state = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in state.items() if "layers.0" not in name}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.0"):
        load_speaker(str(folder), CPU, torch.float32)
    save_file(state, folder / "model.safetensors")
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="no chat template"):
        load_speaker(str(folder), CPU, torch.float32)
