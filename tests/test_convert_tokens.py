"""Ids of a published folder's added tokens: whichever file says them, they are those of the embedding's rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from published import (
    PIECES,
    TOKENS,
    added_tokens,
    published_model,
    training_state,
    write_clip,
    write_published,
    write_weights,
)
from tiny_run import tiny_recipe

from cores.checkpoints.published.conversion import convert
from cores.checkpoints.published.convert_bases import convert_llava
from cores.checkpoints.published.held_tokens import row_faults
from cores.checkpoints.published.keys import ignored
from cores.cli import main
from cores.errors import CheckpointError
from cores.processing import CoresProcessor
from cores.processing.legacy_tokenizer import pieces_of, read_legacy_tokenizer
from cores.processing.tokens import encode
from cores.training.start import start

MARKS = {name: number for name, number in added_tokens(2).items() if name not in TOKENS[2]}


def in_json(folder: Path, held: dict[str, int]) -> None:
    (folder / "added_tokens.json").write_text(json.dumps(held))


def in_settings(folder: Path, held: dict[str, int]) -> None:
    entries = {str(number): {"content": token, "special": True} for token, number in held.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": True, "added_tokens_decoder": entries}))


def in_fast(folder: Path, held: dict[str, int]) -> None:
    read_legacy_tokenizer(folder / "tokenizer.model", (), held).backend_tokenizer.save(str(folder / "tokenizer.json"))


def in_fast_vocabulary(folder: Path, held: dict[str, int]) -> None:
    """As some conversions have it: no added tokens, longer a vocabulary."""
    in_fast(folder, held)
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["model"]["vocab"] |= held
    stored["added_tokens"] = stored["added_tokens"][:3]
    (folder / "tokenizer.json").write_text(json.dumps(stored))


PLACES: dict[str, Callable[[Path, dict[str, int]], None]] = {
    "added_tokens.json": in_json,
    "tokenizer_config.json": in_settings,
    "tokenizer.json": in_fast,
    "tokenizer.json, vocabulary": in_fast_vocabulary,
}


def published(folder: Path, held: dict[str, int] | None = None, place: str = "added_tokens.json") -> tuple[Path, Path]:
    """A published CoReS in `folder/src`, its CLIP in `folder/clip`; the added tokens are said in one place alone."""
    model = published_model(2)
    src, clip = write_published(folder / "src", model, shards=1), write_clip(folder / "clip", model)
    (src / "added_tokens.json").unlink()
    PLACES[place](src, added_tokens(2) if held is None else held)
    return src, clip


def ids_of(folder: Path) -> dict[str, int]:
    vocabulary = CoresProcessor.from_pretrained(folder).tokenizer.get_vocab()
    return {token: vocabulary[token] for token in added_tokens(2)}


@pytest.mark.parametrize("place", PLACES)
def test_ids_are_read_wherever_they_are_said(place: str, tmp_path: Path) -> None:
    src, clip = published(tmp_path, place=place)
    convert("cores", src, clip, tmp_path / "out")
    assert ids_of(tmp_path / "out") == added_tokens(2)


@pytest.mark.parametrize("place", PLACES)
def test_a_training_state_gets_its_bases_ids(place: str, tmp_path: Path) -> None:
    base, clip = published(tmp_path, MARKS, place)
    rewrite(base / "config.json", vocab_size=PIECES + len(MARKS))
    (tmp_path / "state").mkdir()
    write_weights(tmp_path / "state", training_state(published_model(2)))
    convert("cores", tmp_path / "state" / "pytorch_model.bin", clip, tmp_path / "out", base=base)
    assert ids_of(tmp_path / "out") == added_tokens(2)

    for name in ("added_tokens.json", "tokenizer_config.json", "tokenizer.json"):
        (base / name).unlink(missing_ok=True)
    message = f"config.json says {PIECES + 3} tokens, the tokenizer's files name {PIECES}: 3 are missing"
    with pytest.raises(CheckpointError, match=message):
        convert("cores", tmp_path / "state" / "pytorch_model.bin", clip, tmp_path / "other", base=base)


def test_a_llavas_tokens_are_not_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src, clip = published(tmp_path, MARKS, "tokenizer_config.json")
    state = torch.load(src / "pytorch_model.bin")
    kept = {n: v for n, v in state.items() if not n.startswith(("model.visual_model", "model.text_hidden"))}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        kept[name] = kept[name][: PIECES + len(MARKS)]
    write_weights(src, {name: value for name, value in kept.items() if ignored(name) is None})
    rewrite(src / "config.json", vocab_size=PIECES + len(MARKS))
    convert_llava(src, clip, tmp_path / "out")
    entries = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["added_tokens"]
    assert {e["content"]: e["id"] for e in entries if e["id"] >= PIECES} == MARKS

    (src / "tokenizer_config.json").unlink()
    flags = ["--from", "llava", "--src", str(src), "--clip", str(clip), "--out", str(tmp_path / "other")]
    assert main(["convert", *flags]) == 2
    assert f"has {PIECES + 3} rows, the tokenizer's files name {PIECES} tokens: 3 of" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_from_bases_and_converted_the_same_words_are_the_same_ids(tmp_path: Path) -> None:
    """Style `published` on a LLaVA whose tokenizer lacks the levels' tokens, and the CoReS that was made of it."""
    src, clip = published(tmp_path)
    convert("cores", src, clip, tmp_path / "cores")
    model = published_model(2)
    model.segmenter.save_pretrained(tmp_path / "sam")
    model.mllm.save_pretrained(tmp_path / "llava")
    read_legacy_tokenizer(src / "tokenizer.model", (), MARKS).save_pretrained(tmp_path / "llava")
    settings = {"mllm": tmp_path / "llava", "segmenter": tmp_path / "sam", "style": "published", "refiner": "none"}
    recipe = tiny_recipe(
        tmp_path, model__bases="null", **{f"model__{name}": value for name, value in settings.items()}
    )
    made, converted = start(recipe, 0)[2].tokenizer, CoresProcessor.from_pretrained(tmp_path / "cores").tokenizer
    assert made.get_vocab() == converted.get_vocab()
    for text in (
        "It usually appears on [SEG_SEMA]. It is [SEG].",
        " [SEG] .</s>",
        "<im_start><im_end>\nwhat is [SEG]?",
    ):
        assert encode(made, text) == encode(converted, text), text
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(src / "tokenizer.model"))
    assert encode(made, "[SEG].") == [334, *pieces.encode(".")]
    stored = json.loads((tmp_path / "cores" / "processor_config.json").read_text())
    assert any("[SEG]. " in test["text"] for test in stored["self_test"])


def test_files_that_contradict_each_other_are_refused_with_every_token(tmp_path: Path) -> None:
    src, clip = published(tmp_path)
    held = added_tokens(2)
    in_settings(src, held | {"[SEG]": held["[SEG_SEMA]"], "[SEG_SEMA]": held["[SEG]"], "<s>": 7})
    with pytest.raises(CheckpointError) as caught:
        convert("cores", src, clip, tmp_path / "out")
    said = str(caught.value)
    assert "[SEG] is 333 in tokenizer_config.json, 334 in added_tokens.json" in said
    assert "[SEG_SEMA] is 334 in tokenizer_config.json, 333 in added_tokens.json" in said
    assert "<s> is 7 in tokenizer_config.json, 1 in tokenizer.model" in said


def test_all_faults_of_a_tokenizer_are_said_at_once(tmp_path: Path) -> None:
    held = {"<im_patch>": 330, "<im_start>": 340, "<im_end>": 332, "[SEG]": 334}
    src, clip = published(tmp_path, held)
    with pytest.raises(CheckpointError) as caught:
        convert("cores", src, clip, tmp_path / "out")
    said = str(caught.value)
    for part in (
        "<im_end> is 332, expected 331",
        "[SEG] is 334, expected 332",
        "<im_start> is 340, expected 333",
        "does not hold [SEG_SEMA]",
        "has 335 rows, the tokenizer's files name 334 tokens",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", '{"<im_start>": "three"}'),
        ("added_tokens.json", '{"<im_start>": 1e400}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1, 2]}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "<a>"}}}'),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": {"vocab": {"a": null}}}'),
        ("tokenizer.json", "[]"),
    ],
)
def test_files_that_are_no_tokens_are_refused_by_name(name: str, content: str, tmp_path: Path) -> None:
    src, clip = published(tmp_path)
    (src / name).write_text(content)
    with pytest.raises(CheckpointError, match=name):
        convert("cores", src, clip, tmp_path / "out")


def test_rows_without_a_token_are_padding_or_a_fault() -> None:
    table = torch.randn(8, 4)
    assert row_faults(table, 8) == []
    assert "1 of them are missing" in row_faults(table, 7)[0]
    table[5:] = table[5].clone()
    assert row_faults(table, 5) == []
    assert row_faults(table, 7) != []  # one row alone is alike to itself
    table[7] = 0
    assert row_faults(table, 7) == []


def test_pieces_are_the_tokenizers_own(tmp_path: Path) -> None:
    src, _ = published(tmp_path)
    pieces = pieces_of(src / "tokenizer.model")
    assert (len(pieces), pieces["<unk>"], pieces["<s>"]) == (PIECES, 0, 1)
