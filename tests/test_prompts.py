"""Prompts are data: what each format, style and form of a query writes, and what a checkpoint keeps of it."""

import json
from random import Random

import pytest

from cores.errors import CheckpointError, DataError, RecipeError
from cores.prompts import Prompt, PromptSettings, format_names


def prompt(**settings):
    return Prompt(PromptSettings(**settings))


def text(pieces):
    return "".join(piece.text for piece in pieces)


def drawn(draw, tries=600):
    rng = Random(0)
    return {draw(rng) for _ in range(tries)}


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("style", ["paper", "published", "lisa"])
def test_prefix_and_conversation_are_the_whole_prompt_cut_behind_the_picture(name, style):
    made = prompt(format=name, style=style, exemplars="random")
    turns = [("what?", "this."), ("and?", "{that}."), ("then?", None)]
    whole = made.whole([("<image>\nwhat?", "this."), *turns[1:]], Random(3))
    after = made.conversation(turns)
    assert made.prefix(Random(3)) + text(after) == text(whole)
    assert [piece.supervised for piece in after] == [False, True, False, True, False]
    assert text(after).startswith("\nwhat?")
    assert all(made.closing in piece.text for piece in after if piece.supervised)


def test_the_plain_format_is_short():
    made = prompt(format="plain", exemplars="none")
    assert made.prefix(Random(0)) == "USER: <im_start><image><im_end>"
    assert text(made.conversation([("what?", "this.")])) == "\nwhat? ASSISTANT: this.</s>"
    with_one = prompt(format="plain", exemplars="fixed").prefix(Random(0))
    assert with_one.startswith("USER: What is the blade in this image?")
    assert with_one.endswith("or propelling surface. USER: <im_start><image><im_end>")


def test_styles_differ_in_the_sentence_about_the_hierarchy_and_in_blanks():
    paper, published, lisa = (
        prompt(style=s, exemplars="none").system(Random(0)) for s in ("paper", "published", "lisa")
    )
    assert lisa.endswith("the human's questions.")
    assert paper.startswith(f"{lisa} To realize segmentation, the assistant guesses all possible object")
    assert paper.endswith("its distinct appearance.")
    assert published == f"{paper} "


def test_exemplars_show_the_hierarchy_in_words_alone():
    library = prompt().words.exemplars
    assert len(library) >= 61
    assert len({one.question for one in library}) == len(library) == len({one.answer for one in library})
    for one in library:
        assert not {"[", "<", "{"} & set(one.question + one.answer)
        where, what = one.answer.split(". ", 1)  # where it is found, then what it looks like
        assert where.startswith(
            ("It is usually found", "It usually appears", "It typically appears", "We can usually find")
        )
        assert what.startswith("It is ")
        assert what.endswith(".")


def test_exemplars_are_drawn_as_the_settings_say():
    def drawn_by(exemplars, seed=0):
        return prompt(format="plain", exemplars=exemplars).prefix(Random(seed)).count("ASSISTANT:")

    assert [drawn_by(e) for e in ("none", "fixed", "random", 0, 1, 5)] == [0, 1, 1, 0, 1, 5]
    assert drawn_by(67) == 67  # without replacement: all of them
    random = prompt(exemplars="random")
    assert random.prefix(Random("0 a")) == random.prefix(Random("0 a"))
    assert len({random.prefix(Random(f"0 {n}")) for n in range(300)}) > 50
    with pytest.raises(RecipeError, match="prompt.exemplars: found 68, there are 67"):
        prompt(exemplars=68)


def test_questions_and_answers_have_the_published_counts():
    made = prompt(style="published")
    assert len(drawn(lambda rng: made.ask("dog", "phrase", rng))) == 4
    assert len(drawn(lambda rng: made.ask("Where?", "sentence", rng))) == 2
    assert len(drawn(lambda rng: made.ask("Where?", "explain", rng))) == 3
    assert len(drawn(lambda rng: made.answer([None], rng))) == 18
    assert len(drawn(lambda rng: prompt(levels=1).answer([None], rng))) == 5
    assert "Sure, we can usually find it on [SEG_SEMA]. The segmentation result is [SEG]." in drawn(
        lambda rng: made.answer([None], rng)
    )


def test_validation_asks_in_one_wording_and_small_letters_are_for_training():
    made = prompt(style="published")
    assert made.ask("the Dog", "phrase") == "What is the Dog in this image? Please output segmentation mask."
    assert made.ask("Where is it?", "sentence") == "Where is it? Please output segmentation mask."
    assert made.ask("Why?", "raw") == "Why?"
    assert all("the dog" in question for question in drawn(lambda rng: made.ask("the Dog", "phrase", rng), 20))
    assert all("Where IS" in question for question in drawn(lambda rng: made.ask("Where IS", "sentence", rng), 20))
    assert made.answer([None]) == "It usually appears on [SEG_SEMA]. It is [SEG]."
    assert prompt(style="lisa").answer([None]) == "[SEG]."


def test_three_levels_name_the_part_in_every_answer():
    made = prompt(levels=3)
    assert made.answer([None]) == "It usually appears on [LOC], more exactly on [PART]. It is [SEG]."
    answers = drawn(lambda rng: made.answer([None], rng))
    assert len(answers) == 18
    assert all(answer.count("[LOC], more exactly on [PART]. ") == 1 for answer in answers)


def test_several_targets_have_a_chain_each_and_those_with_a_phrase_are_named():
    made = prompt()
    assert made.answer(["the kettle", None]) == (
        "the kettle: it usually appears on [LOC]. It is [SEG]. It usually appears on [LOC]. It is [SEG]."
    )
    assert made.answer(["the kettle"]) == "It usually appears on [LOC]. It is [SEG]."  # nothing to tell apart
    for answer in drawn(lambda rng: made.answer(["the cup", "the jug"], rng), 50):
        assert answer.startswith("the cup: ")
        assert " the jug: " in answer
        assert "ure, " not in answer
        assert answer.count("[LOC]") == answer.count("[SEG]") == 2


def test_an_exchange_says_what_the_data_say():
    made = prompt()
    chain = "It usually appears on [LOC]. It is [SEG]."
    assert made.exchange("what?", "explain", "It cuts.", [None]).answer == f"{chain} It cuts."
    assert made.exchange("how many?", "raw", "Two.", []).answer == "Two."
    own = made.exchange("what?", "raw", "See {loc}: {seg}.", ["x"])
    assert (own.question, own.answer, own.chains) == ("what?", "See [LOC]: [SEG].", 1)
    with pytest.raises(DataError, match="names 1 targets, there are 2"):
        made.exchange("what?", "raw", "See {loc}: {seg}.", [None, None])


def test_what_is_not_there_is_refused_or_shown_empty():
    refusing, showing = prompt(), prompt(style="published")
    refusal = refusing.exchange("a horse", "phrase", None, [])
    assert (refusal.answer, refusal.chains) == ("There is no such thing in this image.", 0)
    assert len(drawn(lambda rng: refusing.exchange("a horse", "phrase", None, [], rng).answer, 100)) > 3
    empty = showing.exchange("a horse", "phrase", None, [])
    assert (empty.answer, empty.chains) == ("It usually appears on [SEG_SEMA]. It is [SEG].", 1)


def test_a_refusal_is_known_by_how_it_begins():
    made = prompt()
    for stem in made.words.refusals:
        assert made.refuses(stem)
        assert made.refuses(f"  {stem.upper().replace(' ', '  ').rstrip('.')}, I am sorry.")
    assert not made.refuses("There is a cup. There is no such thing in this image.")


@pytest.mark.parametrize("mark", ["<image>", "<im_start>", "<im_end>"])
def test_the_pictures_marks_are_refused_in_what_people_write(mark):
    with pytest.raises(DataError, match=f"{mark}, which marks the picture's place"):
        prompt().conversation([(f"what {mark}?", None)])


def test_a_checkpoint_keeps_its_words_whatever_this_package_says_later(tmp_path):
    made = prompt(style="published", levels=3, exemplars=2)
    made.save(tmp_path)
    again = Prompt.load(tmp_path)
    assert again.settings == made.settings
    assert again.words == made.words
    file = tmp_path / "prompt.json"
    stored = json.loads(file.read_text("utf-8"))
    stored["wording"]["validation_answer"] = "Look at {loc}, {part}: {seg}!"
    file.write_text(json.dumps(stored), encoding="utf-8")
    assert Prompt.load(tmp_path).answer([None]) == "Look at [SEG_SEMA], [PART]: [SEG]!"

    stored["wording"]["tone"] = "kind"
    file.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"prompt.json.*tone"):
        Prompt.load(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match="prompt.json: is missing"):
        Prompt.load(tmp_path)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(RecipeError) as raised:
        PromptSettings(format="vicuna", levels=4, exemplars="many", on_absent="cry")
    for word in ("vicuna", "levels: found 4", "'many'", "'cry'", "llava_v1"):
        assert word in str(raised.value)
    with pytest.raises(RecipeError, match="a different one for each level"):
        PromptSettings(tokens={"location": "[SEG]", "target": "[SEG]"})
    assert PromptSettings(tokens={"target": "<seg>"}).level_tokens == ("<seg>",)
    assert PromptSettings(style="published").level_tokens == ("[SEG_SEMA]", "[SEG]")
