"""`cores prompt` prints what the published programs print, from a tokenizer.model or from a model folder."""

import json

import pytest
from shared import shared
from tiny_tokenizer import tiny_processor

from cores.cli import main
from cores.prompts.forms import form_of


@pytest.fixture
def tokenizer():
    return str(shared("golden/tokens") / "tokenizer.model")


# The stored cases of one turn, by number, in the flags that ask for them. Number 0's question is the first wording.
ANSWER = "Sure, it appears on {loc}. The segmentation result is {seg}."
CASES = {
    0: ["--mode", "train", "--query", "Dog", "--answer", ANSWER],
    1: ["--mode", "val", "--query", "the handle of the mug"],
    2: ["--query", "what here could cut the bread?", "--sentence"],
    4: ["--format", "llava_llama_2", "--mode", "val", "--query", "the handle of the mug"],
    8: ["--format", "llava_v0", "--mode", "generate", "--query", "what here could cut the bread?", "--sentence"],
    10: ["--style", "lisa", "--mode", "train", "--query", "dog", "--answer", "Sure, [SEG]."],
    11: ["--style", "lisa", "--query", "where is it?", "--sentence"],
}


@pytest.mark.parametrize("number", CASES)
def test_flags_give_the_stored_cases(number, tokenizer, capsys):
    case = json.loads((shared("golden/tokens") / "cases.json").read_text("utf-8"))[number]
    assert main(["prompt", tokenizer, *CASES[number], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"] == case["prompt"]
    assert found["ids"] == case["ids"]
    assert found["labels"] == case.get("labels", found["labels"])


def test_a_model_folder_has_its_own_style_and_format(tmp_path, capsys):
    processor = tiny_processor()
    processor.save_pretrained(tmp_path)
    assert main(["prompt", str(tmp_path), "--query", "kettle", "--format", "plain"]) == 0
    ids = processor.tokenizer.encode("What is kettle in this image? Please output segmentation mask. ASSISTANT:")
    out = capsys.readouterr().out
    assert out.startswith("prompt:\nUSER: <im_start><image><im_end>\nWhat is kettle in this image?")
    assert out.endswith(f"{ids}\n".lstrip("["))
    assert main(["prompt", str(tmp_path), "--query", "kettle", "--style", "lisa"]) == 2
    assert "--style lisa: this model was trained with paper" in capsys.readouterr().err


def test_a_seed_draws_wordings(tokenizer, capsys):
    def asked(*flags):
        assert main(["prompt", tokenizer, "--mode", "train", "--query", "dog", "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out)["prompt"]

    assert asked() == asked()
    assert asked("--seed", "3") == asked("--seed", "3")
    assert len({asked("--seed", str(n)) for n in range(12)}) > 6


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--query", " "], "--query is empty"),
        (["--query", "dog", "--answer", "Yes."], "add --mode train or val"),
        (["--query", "dog", "--format", "alpaca"], "found 'alpaca', expected one of llava_llama_2"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(flags, said, tokenizer, capsys):
    assert main(["prompt", tokenizer, *flags]) == 2
    out = capsys.readouterr()
    assert not out.out
    assert said in out.err
    assert out.err.count("\n") == 1


def test_a_model_is_shown_as_predict_asks_it(tmp_path, capsys):
    processor = tiny_processor()
    processor.save_pretrained(tmp_path)
    for query in ("the handle", "the part you hold to pour", "where is it?"):
        assert main(["prompt", str(tmp_path), "--query", query, "--json"]) == 0
        ids = json.loads(capsys.readouterr().out)["ids"]
        asked = processor.question(query, form_of(query)).tolist()
        assert ids[-len(asked) :] == asked
