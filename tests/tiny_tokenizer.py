"""A tokenizer of few words and the processor that fits `tiny_model()`."""

from typing import Any

from tiny import BOS, EOS, IM_END, IM_START, IMAGE, IMAGE_TOKENS, LOC, PAD, PART, SEG, VOCABULARY
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cores.processing import CoresProcessor, ProcessorSizes
from cores.prompts import PromptSettings

UNK = 3
WORDS = """user assistant : . , ? ! ' it is on appears usually typically we can find sure the segmentation result found
what in this image please output respond with mask segment you a an of and explain why reason give some explanation
there no such thing cannot nothing like that not does fits description more exactly
kettle cup knife handle blade red blue left right hold pour cut bread where show me how many are one two i
yes because""".split()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Whole lower-case words; whatever else is `<unk>`. Ids as tests/tiny.py has them."""
    vocab = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, "<unk>": UNK}
    vocab |= {word: 4 + n for n, word in enumerate(WORDS)}
    vocab |= {f"spare{n}": n for n in range(4 + len(WORDS), LOC)}
    vocab |= {"[LOC]": LOC, "[SEG]": SEG, "<im_start>": IM_START, "<im_end>": IM_END, "<image>": IMAGE, "[PART]": PART}
    assert len(vocab) == VOCABULARY == len(set(vocab.values()))
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ("[LOC]", "[SEG]", "[PART]")])
    special = ("<pad>", "<s>", "</s>", "<im_start>", "<im_end>", "<image>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_processor(levels: int = 2, **prompt: Any) -> CoresProcessor:
    """The processor of `tiny_model(tiny_config(levels))`; keywords go to PromptSettings."""
    tokens = {1: {"target": "[SEG]"}, 2: {"location": "[LOC]", "target": "[SEG]"}}
    tokens[3] = {"location": "[LOC]", "part": "[PART]", "target": "[SEG]"}
    settings = PromptSettings(**{"format": "plain", "exemplars": "none", "tokens": tokens[levels]} | prompt)
    sizes = ProcessorSizes(
        mllm_image_size=32, image_tokens=IMAGE_TOKENS, image_token_id=IMAGE, segmenter_image_size=64
    )
    return CoresProcessor(tiny_tokenizer(), settings, sizes)
