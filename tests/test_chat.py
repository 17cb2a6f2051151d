"""Chat templates as prompt formats: what is rendered and cut once writes what the template would have written."""

from random import Random

import numpy as np
import pytest
from byte_tokenizer import byte_tokenizer
from PIL import Image

from cores.data.sample import Conversation, Sample, Target, Turn
from cores.errors import CheckpointError, DataError, RecipeError
from cores.masks import encode as encode_mask
from cores.processing import CoresProcessor, ProcessorSizes, add_tokens
from cores.prompts import Prompt, PromptSettings

# Templates in the ways of the families, in our own words. Each: template, tokens, beginning token, whether the
# tokenizer writes that by itself, and what ends an answer.
PARTS = (
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    + PARTS.replace("IMAGE", "<|vision_start|><image><|vision_end|>")
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    + PARTS.replace("IMAGE", "<image>")
    + "<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (  # the system text stands in the first turn
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'][0]['text'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if loop.first %}{{ system }}{% endif %}"
    + PARTS.replace("IMAGE", "<image>").replace("part['text']", "part['text'] | trim")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA_2 = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + GEMMA
MISTRAL = (  # one text a message; no system role: the last question takes the text
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{% for message in rest %}"
    "{% if message['role'] == 'user' %}[INST] {% if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}"
    "{{ message['content'] }} [/INST]{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
SMOL = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    + PARTS.replace("IMAGE", "<image>")
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
THINKS = (  # empty thoughts stand before the last answer alone
    CHATML.replace(
        "{{ message['role'] }}\n",
        "{{ message['role'] }}\n{% if message['role'] == 'assistant' and loop.last %}"
        "<think>{{ '\n\n' }}</think>{{ '\n\n' }}{% endif %}",
    ).replace(
        "assistant\n{% endif %}",
        "assistant\n<think>{% if enable_thinking is false %}{{ '\n\n' }}</think>{{ '\n\n' }}{% endif %}{% endif %}",
    )
)
QUIET = CHATML.replace(  # empty thoughts stand where an answer is asked for alone
    "assistant\n{% endif %}", "assistant\n<think>{{ '\n\n' }}</think>{{ '\n\n' }}{% endif %}"
)
GLM = (  # something stands before everything, and nothing closes an answer
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n"
    + PARTS.replace("IMAGE", "<|begin_of_image|><image><|end_of_image|>")
    + "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TEMPLATES = {
    "chatml": (CHATML, ["<|vision_start|>", "<|vision_end|>", "<|im_start|>"], None, False, "<|im_end|>"),
    "llama_3": (LLAMA_3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<bos>", True, "<|end_of_text|>"),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"], "<bos>", True, "<eos>"),
    "gemma_2": (GEMMA_2, ["<start_of_turn>", "<end_of_turn>"], "<bos>", True, "<eos>"),
    "mistral": (MISTRAL, ["[INST]", "[/INST]"], "<s>", True, "</s>"),
    "glm": (GLM, [f"<|{name}|>" for name in ("user", "assistant", "end_of_image")] + ["<sop>"], None, False, "<eos>"),
    "quiet": (QUIET, ["<|vision_start|>", "<|vision_end|>", "<think>", "</think>"], None, False, "<|im_end|>"),
    "thinks": (THINKS, ["<|vision_start|>", "<|vision_end|>", "<think>", "</think>"], None, False, "<|im_end|>"),
    "smol": (SMOL, [], "<|im_start|>", False, "<end_of_utterance>"),
}
SIZES = {"mllm_image_size": 28, "image_tokens": 4, "segmenter_image_size": 64}


def processor_of(template, special, bos, adds_bos, eos, **settings):
    tokenizer = byte_tokenizer(["<image>", *special], bos, eos, adds_bos, chat_template=template)
    add_tokens(tokenizer, ["[LOC]", "[SEG]"], marks=False)
    sizes = ProcessorSizes(image_token_id=tokenizer.convert_tokens_to_ids("<image>"), **SIZES)
    return CoresProcessor(tokenizer, PromptSettings(format="chat", **settings), sizes)


def template_ids(processor, turns, system):
    """The template's own writing of a conversation, with the picture's four places, as ids."""
    tokenizer, listed = processor.tokenizer, "part['text']" in processor.tokenizer.chat_template
    no_role = "system role" in tokenizer.chat_template or not listed
    messages = []

    def say(role, text, picture=False):
        before = f"{system}\n\n" if picture and system and no_role else ""
        if listed:
            parts = [{"type": "text", "text": before}] if before else []
            parts += [{"type": "image"}] if picture else []
            messages.append({"role": role, "content": [*parts, {"type": "text", "text": text}]})
        else:
            text = f"<image>\n{text}" if picture else text
            messages.append({"role": role, "content": before + text})

    if system and not no_role:
        say("system", system)
    for number, (question, answer) in enumerate(turns):
        say("user", question, picture=number == 0)
        if answer is not None:
            say("assistant", answer)
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=turns[-1][1] is None, enable_thinking=False
    )
    text = text.replace("<image>", "<image>" * 4)
    if "<think>" in tokenizer.chat_template:  # all answers begin alike
        thoughts, begins = "<think>\n\n</think>\n\n", "<|im_start|>assistant\n"
        text = text.replace(thoughts, "").replace(begins, begins + thoughts)
    bos = tokenizer.bos_token
    first = [] if bos is None or text.startswith(bos) else [tokenizer.bos_token_id]
    return [*first, *tokenizer.encode(text, add_special_tokens=False)]


CONVERSATIONS = {
    "open": [("Where is it?", None)],
    "one turn": [("Where is it?", "It is [SEG].")],
    "two turns": [("Where is it?", "It appears on [LOC]. It is [SEG]."), ("it or\n\nthat?", "Neither: it's\n\nnot.")],
    "two turns, open": [("Where is it?", "It is [SEG]."), ("Why?", None)],
}


def written_ids(processor, turns):
    prefix = processor.prefix(0, "key").tolist()
    return [*prefix, *processor._conversation(turns).ids]


@pytest.mark.parametrize("exemplars", ["none", "fixed", 2])
@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_prefix_and_conversation_have_the_ids_of_the_templates_own_writing(name, turns, exemplars):
    processor = processor_of(*TEMPLATES[name], exemplars=exemplars)
    system = processor.writer.system(Random("0 key"))
    assert ("USER:" in system) is (exemplars != "none")
    ours, theirs = written_ids(processor, turns), template_ids(processor, turns, system)
    if name == "glm" and turns[-1][1]:  # what closes an answer is not in the template
        assert processor.tokenizer.decode(ours.pop()) == "<|user|>"
    assert ours == theirs[: len(ours)]
    assert not processor.tokenizer.decode(theirs[len(ours) :]).strip()
    assert turns[-1][1] or len(theirs) == len(ours)  # an open question ends where the answer begins
    bos = processor.tokenizer.bos_token_id
    assert bos is None or (ours[0] == bos and ours[:2].count(bos) == 1)


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_system_text_stands_where_none_is_given(name):
    processor = processor_of(*TEMPLATES[name], exemplars="none", style="lisa", tokens={"target": "[SEG]"})
    turns = CONVERSATIONS["two turns, open"]
    ours, theirs = written_ids(processor, turns), template_ids(processor, turns, "")
    if "You are a helpful" in processor.tokenizer.decode(theirs):
        default = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        theirs = theirs[len(processor.tokenizer.encode(default, add_special_tokens=False)) :]
        assert processor.tokenizer.decode(ours).startswith("<|im_start|>user\n<|vision_start|>")
    assert ours == theirs


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_learned_up_to_what_closes_them(name):
    processor = processor_of(*TEMPLATES[name], exemplars="none")
    tokenizer = processor.tokenizer
    tokens = processor._conversation(CONVERSATIONS["two turns"])
    learned = [n for n in tokens.labels if n != -100]
    text = tokenizer.decode(learned)
    end = {"llama_3": "<|eot_id|>", "gemma": "<end_of_turn>", "gemma_2": "<end_of_turn>", "glm": "<|user|>"}.get(name)
    end = end or TEMPLATES[name][4]
    assert text.count(end) == 2
    assert text.endswith(f"not.{end}")
    assert processor.closing == [tokenizer.convert_tokens_to_ids(end)]
    reading = processor.parse_answer(processor.answer_ids("It appears on [LOC]. It is [SEG]."))
    assert (reading.status, reading.text) == ("segmented", "It appears on [LOC]. It is [SEG].")


def test_the_parts_are_saved_and_the_template_is_not_asked_again(tmp_path):
    processor = processor_of(*TEMPLATES["chatml"], exemplars="fixed")
    processor.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('asked again') }}")
    again = CoresProcessor.from_pretrained(tmp_path)
    for turns in CONVERSATIONS.values():
        assert written_ids(again, turns) == written_ids(processor, turns)
    assert again.writer.words == processor.writer.words
    assert again.closing == processor.closing


def test_a_batch_is_made_as_in_any_other_format():
    processor = processor_of(*TEMPLATES["chatml"], exemplars="none")
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:9, 4:12] = True
    turn = Turn("kettle", targets=(Target(encode_mask(mask)),))
    sample = Sample(Image.new("RGB", (30, 20)), (20, 30), (Conversation((turn,)),))
    batch = processor.collate([sample, sample], 0, 0, [0, 1], mode="val")
    picture = processor.picture(sample.image)
    parts = [processor.prefix(0, picture.key, picture), processor.question("kettle", "phrase")]
    ids = [*parts[0], *parts[1], *processor.answer_ids(turn)]
    assert batch["input_ids"][0].tolist() == ids
    assert batch["pixel_values"].shape == (2, 3, 28, 28)
    assert batch["pixel_extras"] == {}
    with pytest.raises(DataError, match="which marks the picture's place"):
        processor.question("where is <image>?")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"<|vision_start|><image><|vision_end|>": ""}, "'<image>' comes 0 times"),
        ({"<|im_end|>": "", "<|im_start|>": "@"}, "it writes nothing that closes an answer"),
        ({"<|im_start|>{{": "<|im_start|>{{ loop.index0 }}{{"}, "an answer begins with .* when it is given, with .*"),
        ({"{% for part": "{% if loop.last and loop.first %}!{% endif %}{% for part"}, "put together again it reads"),
        (
            {"<|im_start|>{{": "{% if message['role'] != 'user' or loop.index0 > 1 %}<|im_start|>{% endif %}{{"},
            "where no system text is given, which cannot be left out",
        ),
    ],
    ids=["no picture", "nothing ends", "numbers", "one turn is special", "its own system text"],
)
def test_a_template_that_cannot_be_cut_is_refused(changes, message):
    template, *others = TEMPLATES["chatml"]
    for old, new in changes.items():
        assert old in template
        template = template.replace(old, new)
    with pytest.raises(CheckpointError, match=f"chat template cannot be cut into parts: .*{message}"):
        processor_of(template, *others)


def test_chat_needs_a_template():
    with pytest.raises(CheckpointError, match="the tokenizer has no chat template"):
        processor_of(None, [], None, False, "</s>")
    with pytest.raises(RecipeError, match="chat is made of a model's own chat template"):
        Prompt(PromptSettings(format="chat"))
