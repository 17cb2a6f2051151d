"""Names and files of chains in words; what cannot be loaded is refused before any weights are read."""

import json
from pathlib import Path

import pytest

import cores
from cores.cli import main
from cores.errors import CheckpointError, RecipeError, UserError
from cores.words.chain import Settings
from cores.words.hearing import Heard, Pointed, elect
from cores.words.load import WordsRecipe, is_words, read_words
from cores.words.places import Place, group, phrases_of, places_of, status_of
from cores.words.speaker import Spoken

NAME = "words:Qwen/Qwen3-VL-4B-Instruct@v1+facebook/sam-vit-huge"


def test_a_name_and_a_file_say_the_same(tmp_path: Path) -> None:
    mllm, segmenter = "Qwen/Qwen3-VL-4B-Instruct@v1", "facebook/sam-vit-huge"
    assert read_words(NAME) == WordsRecipe(mllm=mllm, segmenter=segmenter)
    file = tmp_path / "words.yaml"
    file.write_text(f"kind: words\nmllm: {mllm}\nsegmenter: {segmenter}\n")
    assert read_words(str(file)) == read_words(NAME)
    file.write_text(f"kind: words\nmllm: {mllm}\nsegmenter: {segmenter}\nlevels: 1\ncrop: false\nvotes: 5\n")
    assert read_words(str(file)).settings == Settings(levels=1, crop=False, votes=5)
    assert [is_words(name) for name in (NAME, file, None, "runs/first", "owner/model")] == [True, True] + [False] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {}\n", "kind: words"),
        ("kind: words\nmllm: a\n", "segmenter is missing"),
        ("kind: words\nmllm: a\nsegmenter: b\nvote: 3\n", "there is no vote; did you mean votes"),
        (
            "kind: words\nmllm: a\nsegmenter: b\nlevels: 3\ncrop: 1\n",
            "levels: found 3, expected 1 or 2; crop: found 1",
        ),
        ("kind: words\nmllm: a\nsegmenter: b\nvotes: 0\n", "votes: found 0, expected a whole number from 1"),
        ("kind: [\n", "is no YAML"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        cores.load(file, device="cpu")


@pytest.mark.parametrize("name", ["words:", "words:one", "words:a+b+c", "words:+b"])
def test_a_name_names_two_models(name: str) -> None:
    with pytest.raises(RecipeError, match=r"words:MLLM\+SEGMENTER"):
        cores.load(name)


def test_a_family_that_says_no_boxes_is_refused_by_its_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "paligemma"}))
    with pytest.raises(
        CheckpointError, match="a paligemma cannot be asked for boxes in words: it answers in location"
    ):
        cores.load(f"words:{tmp_path}+shipped", device="cpu")


def test_an_evaluation_with_given_answers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "eval",
        "words:shipped+shipped",
        "--on",
        "scenes|test",
        "--limit",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--answers", "both", "--quiet"]) == 2
    assert "no tokens to be teacher-forced: take generated" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def heard(status: str, *boxes: tuple[float, float, float, float], label: str | None = None) -> Heard:
    return Heard(status, tuple(Pointed(box, label) for box in boxes), (Spoken("", 0.0, 1, False),))  # type: ignore[arg-type]


def test_votes_are_counted_and_the_most_central_answer_is_taken() -> None:
    near = [heard("boxes", (0, 0, 10, 10 + n)) for n in range(3)]
    far, absent, unclear = heard("boxes", (50, 50, 60, 60)), heard("absent"), heard("unclear")
    assert elect([far, *near, absent, unclear]) is near[1]
    assert elect([absent, absent, near[0], unclear, unclear, unclear]) is absent
    assert elect([unclear, near[0]]) is near[0]
    assert elect([unclear, unclear]).status == "unclear"


def test_boxes_of_one_name_are_one_target() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    first = Heard("boxes", tuple(Pointed(box, label) for label in ("Cup", "plate", "cup")), ())
    handle, nothing = heard("boxes", box, label="handle"), heard("absent")
    found = places_of(first, [handle, nothing, handle])
    assert [place.label for place in found] == ["Cup", "cup"]
    assert [len(each) for each in group(found)] == [2]
    assert phrases_of(group(found)) == ["handle"]
    assert phrases_of(group(places_of(first, [handle] * 3))) == ["Cup", "plate"], "as they were told apart"
    assert phrases_of(group(places_of(first, None))) == ["Cup", "plate"]
    assert status_of([first, nothing], places_of(first, [nothing] * 3)) == "absent"
    assert status_of([first, heard("unclear")], []) == "text"
    assert places_of(nothing, None) == []
    assert Place(None, box, ()) != Place(None, None, ())
