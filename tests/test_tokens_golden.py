"""Prompts, ids and labels of the published programs: the stored cases, and their rule retold with sentencepiece."""

import json
import re
from itertools import groupby
from random import Random

import pytest
import sentencepiece
from shared import shared
from transformers import AutoTokenizer

from cores.errors import CheckpointError
from cores.processing import CoresProcessor, ProcessorSizes
from cores.processing.legacy_tokenizer import read_legacy_tokenizer
from cores.processing.tokens import encode, encode_prompt
from cores.prompts import Prompt, PromptSettings
from cores.prompts.prompt import Piece

STYLES = {"cores": "published", "lisa": "lisa"}
ANSWER_BEGINS = {"llava_v1": " ASSISTANT: ", "llava_llama_2": "[/INST] "}
TURNS = [
    [
        ("<image>\n  What   is\tit ,\n\nreally ?  ", "Sure, [SEG_SEMA] .  It is   [SEG] ."),
        ("And\u00a0then?", "It is [SEG]."),
    ],
    [("<image>\nWas ist größer: 3 Äpfel oder 1234567 café-crèmes?", "  Über 9000 – naïve façade, 漢字 😀.")],
    [("<image>\nHow many?", "12"), ("  And now? ", " 3.14 of 7,500 "), ("Ok", "[SEG] [SEG_SEMA][SEG]"), ("\n?", "…")],
    [("<image>\n[SEG]  what? <im_end> x", "a </s b <s c ▁ d <0x0A> \u200b\u3000")],
    [("no picture here", "none")],
]


@pytest.fixture(scope="module")
def folder():
    return shared("golden/tokens")


@pytest.fixture(scope="module")
def pieces(folder):
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


@pytest.fixture(scope="module")
def tokenizers(folder):
    """By style."""
    file = folder / "tokenizer.model"
    return {s: read_legacy_tokenizer(file, PromptSettings(style=s).level_tokens) for s in STYLES.values()}


def written(turns, style, name):
    return Prompt(PromptSettings(format=name, style=style)).whole(turns, Random(0))


def test_every_stored_case_is_exact(folder, tokenizers):
    cases = json.loads((folder / "cases.json").read_text("utf-8"))
    assert len(cases) >= 12
    for number, case in enumerate(cases):
        style = STYLES[case["style"]]
        parts = written([tuple(turn) for turn in case["turns"]], style, case["format"])
        assert "".join(part.text for part in parts) == case["prompt"], number
        tokens = encode_prompt(tokenizers[style], parts)
        assert tokens.ids == case["ids"], number
        assert tokens.labels == case.get("labels", tokens.labels), number


def split_rule(pieces, tokenizer, text):
    """The published ids of a text without pictures: split at added tokens, strip beside CoReS's, each part alone."""
    added = tokenizer.get_added_vocab()
    parts = [part for part in re.split("(" + "|".join(map(re.escape, added)) + ")", text) if part]
    for n, part in enumerate(parts):
        if part in added and part not in ("<unk>", "<s>", "</s>"):
            if n > 0:
                parts[n - 1] = parts[n - 1].rstrip()
            if n + 1 < len(parts):
                parts[n + 1] = parts[n + 1].lstrip()
    return [i for part in parts if part for i in ([added[part]] if part in added else pieces.encode(part))]


def published(pieces, tokenizer, prompt):
    first, *others = (split_rule(pieces, tokenizer, part) for part in prompt.split("<image>"))
    return [1, *first, *(i for part in others for i in (-200, *part))]


def counted_labels(ids, pieces, tokenizer, prompt, begins):
    """LISA's labels: rounds end in </s>; an instruction is as long as its own tokens, less BOS and the last blank."""
    labels, here = list(ids), 1
    labels[0] = -100
    for turn in prompt.split("</s>"):
        if not turn:
            break
        asked = len(published(pieces, tokenizer, turn.rpartition(begins)[0] + begins)) - 2
        labels[here : here + asked] = [-100] * asked
        here += len(published(pieces, tokenizer, turn))
    assert here == len(ids)
    return labels


@pytest.mark.parametrize("style", STYLES.values())
@pytest.mark.parametrize("name", ["llava_v1", "llava_llama_2", "llava_v0"])
def test_odd_conversations_follow_the_published_rule(name, style, pieces, tokenizers):
    tokenizer = tokenizers[style]
    for turns in TURNS:
        parts = written(turns, style, name)
        prompt = "".join(part.text for part in parts)
        tokens = encode_prompt(tokenizer, parts)
        assert tokens.ids == published(pieces, tokenizer, prompt)
        if name in ANSWER_BEGINS:
            assert tokens.labels == counted_labels(tokens.ids, pieces, tokenizer, prompt, ANSWER_BEGINS[name])
        else:  # ### is learned after an answer, not after a question
            learned = [list(run) for on, run in groupby(tokens.labels, lambda label: label != -100) if on]
            assert [squeezed(tokenizer.decode(ids)) for ids in learned] == [squeezed(f"{a}###") for _, a in turns]


def squeezed(text):
    return "".join(text.replace("▁", " ").split())


def test_random_text_has_sentencepieces_own_ids(pieces, tokenizers):
    tokenizer, rng = tokenizers["published"], Random(0)
    parts = [*"aeinrst.#=-é漢😀▁ \t\n0123", "  ", " " * 5, *tokenizer.get_added_vocab(), *tokenizer.get_vocab()]
    for _ in range(3000):
        text = "".join(rng.choices(parts, k=rng.randint(0, 30)))
        assert encode(tokenizer, text) == split_rule(pieces, tokenizer, text), repr(text)


def test_prefix_and_question_are_the_stored_prompts_with_the_picture_filled_in(folder, tokenizers):
    sizes = ProcessorSizes(mllm_image_size=28, image_tokens=4, image_token_id=804, segmenter_image_size=64)
    cases = json.loads((folder / "cases.json").read_text("utf-8"))
    asked = [case for case in cases if case["mode"] == "generate"]
    assert len(asked) >= 4
    for case in asked:
        style = STYLES[case["style"]]
        made = CoresProcessor(tokenizers[style], PromptSettings(format=case["format"], style=style), sizes)
        query = case["turns"][0][0].removeprefix("<image>\n").removesuffix(" Please output segmentation mask.")
        ids = [*made.prefix().tolist(), *made.question(query, "sentence").tolist()]
        assert ids == [i for number in case["ids"] for i in ([804] * 4 if number == -200 else [number])]


def test_the_added_tokens_of_a_checkpoint_keep_their_ids(folder):
    held = {"<im_patch>": 800, "<im_start>": 801, "<im_end>": 802}  # as LLaVA-Lightning-7B-v1-1
    tokenizer = read_legacy_tokenizer(folder / "tokenizer.model", ("[SEG_SEMA]", "[SEG]"), held)
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<im_start>", "[SEG_SEMA]", "[SEG]")] == [801, 803, 804]
    assert encode(tokenizer, "a <im_patch> .") == encode(tokenizer, "a<im_patch>.")
    with pytest.raises(CheckpointError, match="<im_patch> is 900, expected 800"):
        read_legacy_tokenizer(folder / "tokenizer.model", (), {"<im_patch>": 900})


def test_a_saved_folder_gives_the_same_ids_and_says_when_it_does_not(tmp_path, tokenizers):
    sizes = ProcessorSizes(mllm_image_size=28, image_tokens=4, image_token_id=804, segmenter_image_size=64)
    made = CoresProcessor(tokenizers["published"], PromptSettings(style="published"), sizes)
    made.save_pretrained(tmp_path)
    again = CoresProcessor.from_pretrained(tmp_path)
    assert (again.prompt, again.sizes, again.token_ids) == (made.prompt, made.sizes, [800, 801])
    text = "  x <im_start> \n y[SEG_SEMA] . It is [SEG].</s> z 12é"
    expected = encode(made.tokenizer, text)
    assert encode(again.tokenizer, text) == expected
    assert AutoTokenizer.from_pretrained(tmp_path).encode(text, add_special_tokens=False) == expected

    file = tmp_path / "tokenizer.json"
    stored = json.loads(file.read_text("utf-8"))
    stored["added_tokens"][3]["rstrip"] = False  # what today's tokenizers do by themselves
    file.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(CheckpointError, match="tokenizer.json: reads .* expected"):
        CoresProcessor.from_pretrained(tmp_path)


def test_closing_tokens_are_those_that_an_answer_ends_in(pieces, tokenizers):
    sizes = ProcessorSizes(mllm_image_size=28, image_tokens=4, image_token_id=804, segmenter_image_size=64)
    for name, closing in {"llava_v1": [2], "llava_llama_2": [2], "llava_v0": pieces.encode("a###")[1:]}.items():
        made = CoresProcessor(tokenizers["published"], PromptSettings(format=name, style="published"), sizes)
        assert made.closing == closing
        assert made.answer_ids(None).tolist()[-len(closing) :] == closing
        assert made.parse_answer(made.answer_ids(None)).text == "It usually appears on [SEG_SEMA]. It is [SEG]."


def test_a_file_that_is_no_llama_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="tokenizer.model: cannot be read as a sentencepiece model"):
        read_legacy_tokenizer(tmp_path / "tokenizer.model", ("[SEG]",))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the {a} {b} on a {c}" for a in "abcdefg" for b in "hijklm" for c in "nopqrs"))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "other"), vocab_size=25, model_type="unigram", minloglevel=2
    )
    with pytest.raises(CheckpointError, match="expected a BPE model with LLaMA's flags"):
        read_legacy_tokenizer(tmp_path / "other.model", ("[SEG]",))


def test_labels_follow_the_pieces_even_where_a_tokenizer_joins_them(tokenizers):
    tokens = encode_prompt(tokenizers["published"], [Piece("a ", False), Piece("b</s>", True), Piece("c", False)])
    assert len(tokens.ids) == len(tokens.labels)
    assert tokens.labels[0] == -100
    assert tokens.ids[tokens.ends[0] - 1] == 2
    assert tokens.labels[-1] == -100
