"""Words that a tokenizer does not know are named, told apart, alike in either case, and can be taught."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_tokenizer import tiny_processor, tiny_tokenizer
from transformers import PreTrainedTokenizerFast

import cores
from cores.checkpoints.find import shipped
from cores.checkpoints.load import load
from cores.cli import main
from cores.processing.unknown_words import FIELDS, find_unknown_words
from cores.scenes.kinds import LEARNED
from cores.scenes.scene import make_scene
from cores.scenes.source import open_scenes
from cores.scenes.tokenizer import build_tokenizer, corpus

BOX, CAR = "箱子", "汽车"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def plain(text: str) -> str:
    """A text without the places of tokens and without the letters that are not ASCII."""
    for place in FIELDS:
        text = text.replace(place, " ")
    return text.encode("ascii", "ignore").decode()


def test_the_shipped_tokenizer_is_the_one_that_is_built(tokenizer: PreTrainedTokenizerFast) -> None:
    stored = PreTrainedTokenizerFast.from_pretrained(shipped("cores-tiny"))
    assert stored.get_vocab() == tokenizer.get_vocab()
    model = load(None)[0]
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_every_text_can_be_written_and_different_words_differ(tokenizer: PreTrainedTokenizerFast) -> None:
    words = [BOX, CAR, "箱", "子箱", "naïve", "naive", "ελ", "😀", "🫨", "क्षि", "bagel", "bagels", "箱" * 300]
    found = [tuple(ids_of(tokenizer, word)) for word in words]
    assert len(set(found)) == len(words)
    for word, ids in zip(words, found, strict=True):
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == word
    rng = np.random.default_rng(0)
    points = [int(n) for n in rng.integers(0x21, 0x110000, 4000) if not 0xD800 <= n < 0xE000]
    assert not any(tokenizer.unk_token_id in ids_of(tokenizer, f"x{chr(n)}") for n in points)


def test_case_is_one_but_texts_of_its_own_keep_their_capitals(tokenizer: PreTrainedTokenizerFast) -> None:
    for word in ("kettle", "handle", "bagel", "Éclair"):
        forms = [ids_of(tokenizer, form) for form in (word, word.lower(), word.upper(), word.capitalize())]
        assert forms.count(forms[0]) == 4, word
    assert len(ids_of(tokenizer, "KETTLE")) == 1
    assert ids_of(tokenizer, "What") != ids_of(tokenizer, "what")
    spelled = {token for text in corpus() for token in tokenizer.tokenize(plain(text)) if token.startswith("##")}
    assert not spelled, "no text of the world is spelled, whatever its capitals"


def test_no_untaught_token_can_be_the_next_one(tokenizer: PreTrainedTokenizerFast) -> None:
    model = load(None)[0]
    head = model.get_output_embeddings().weight
    first = min(ids_of(tokenizer, BOX))
    fresh = slice(min(first, tokenizer.convert_tokens_to_ids("<image>") + 1), None)
    states = torch.randn(2000, head.shape[1], generator=torch.Generator().manual_seed(0))
    logits = states @ head.T
    assert (logits[:, fresh].amax(1) < logits[:, : fresh.start].amax(1)).all()
    assert len(model.get_input_embeddings().weight[fresh].unique(dim=0)) == len(head[fresh]), "they read differently"


def test_unknown_words_are_named_once_in_one_bounded_line(tokenizer: PreTrainedTokenizerFast) -> None:
    found = find_unknown_words(tiny_tokenizer(), ["show the kettle, and 箱子!", "Kettle 汽车 {loc} 箱子"])
    assert found.lost == (BOX, CAR)
    assert find_unknown_words(tokenizer, ["the kettle's handle", "箱子", "Bagel", "a B7"]).spelled == (BOX, "Bagel")
    many = str(find_unknown_words(tiny_tokenizer(), [f"quux{n}" for n in range(5000)] + ["ы" * 10_000]))
    assert "and 4,993 more" in many
    assert "\n" not in many
    assert len(many) < 500
    assert not find_unknown_words(tokenizer, ["What is the handle of the red kettle?"])
    assert str(find_unknown_words(tokenizer, ["the kettle"])) == ""


def write_pictures(folder: Path, count: int, queries: dict[str, str]) -> None:
    """A manifest of drawn scenes in which kinds are asked for by other words than their names.

    Three quarters of the pictures hold one of the kinds at least; what a picture does not hold is asked for, too.
    """
    lines: list[str] = []
    seed, n = 50_000_000, 0
    while n < count:
        scene, seed = make_scene(seed, LEARNED), seed + 1
        if n % 4 and not {thing.kind.name for thing in scene.things} & set(queries.values()):
            continue
        scene.picture.save(folder / f"{n}.png")
        for word, kind in queries.items():
            things = [i for i, thing in enumerate(scene.things) if thing.kind.name == kind]
            if things:
                mask = np.logical_or.reduce([scene.mask(i) for i in things])
                Image.fromarray(mask).save(folder / f"{n}-{kind}.png")
            targets = [f"{n}-{kind}.png"] if things else []
            lines.append(json.dumps({"image": f"{n}.png", "query": word, "targets": targets, "form": "phrase"}))
        n += 1
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def test_commands_say_which_words_are_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path, 2, {BOX: "cup", CAR: "kettle"})
    tiny_processor().save_pretrained(tmp_path / "words")
    source = ["--source", "manifest:train.jsonl", "--quiet"]
    assert main(["data", "check", str(tmp_path), *source, "--model", str(tmp_path / "words")]) == 0
    assert f"does not know {BOX}, {CAR}: all such words read alike" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path), *source, "--model", "shipped"]) == 0
    assert f"can only spell {BOX}, {CAR}" in capsys.readouterr().out
    assert main(["prompt", "--query", f"the {BOX}"]) == 0
    assert f"can only spell {BOX}:" in capsys.readouterr().err
    picture, out = str(tmp_path / "0.png"), str(tmp_path / "out")
    assert main(["predict", picture, f"the {CAR}", "--out", out, "--device", "cpu"]) == 0
    assert capsys.readouterr().err.count(f"can only spell {CAR}:") == 1
    assert main(["predict", picture, "the kettle", "--out", f"{out}2", "--device", "cpu"]) == 0
    assert "spell" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_new_word_is_taught_and_no_other_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One new word names cups, which the model knows by another word, and one names what is in no picture."""
    write_pictures(tmp_path, 160, {BOX: "cup", CAR: "truck"})
    command = ["train", "tiny-own", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    settings = ["data.sources.own=[manifest:train.jsonl]", "data.rates={own: 4, old: 1}"]
    settings += ["evaluation.sources=[]", "trainer.eval_strategy=no", "trainer.max_steps=64", "trainer.save_steps=64"]
    assert main([*command, *settings]) == 0
    assert capsys.readouterr().err.count(f"can only spell {BOX}, {CAR}:") == 1
    before, after = cores.load(), cores.load(tmp_path / "run")
    overlap: dict[str, list[float]] = {"before": [], "after": []}
    same = []
    for n in range(40):
        scene = open_scenes("test").scene(n)
        cups = [scene.mask(i) for i, thing in enumerate(scene.things) if thing.kind.name == "cup"]
        if not cups:
            continue
        truth = np.logical_or.reduce(cups)
        for name, model in (("before", before), ("after", after)):
            mask = model.segment(scene.picture, [BOX])[0].mask
            overlap[name].append((mask & truth).sum() / (mask | truth).sum())
        old, new = (model.segment(scene.picture, [CAR, "kettle"]) for model in (before, after))
        same += [one.status == other.status for one, other in zip(old, new, strict=True)]
    assert np.mean(overlap["after"]) > max(0.4, np.mean(overlap["before"]) + 0.3)
    assert np.mean(same) >= 0.9
