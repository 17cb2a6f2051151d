"""Pictures a second of an evaluation, and the shares of its parts, on the model of middle size (`medium.py`).

    OMP_NUM_THREADS=1 python benchmarks/eval_parts.py --pictures 1 4 16

16 scenes of 512 x 512, three questions each, generated: the same 12 tokens always, with a mask of two levels. Seconds
are of the CPU on one thread. `encode`: pictures, by the segmenter; `prefix`: read by the language model and its own
encoder; `answer`: said token by token; `decode`: masks of all levels; `count`: at full size, compared with the truth;
`write`: to disk.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ask import TOKENS, by_heart
from medium import build, config

import cores.asking.asker
from cores.asking.asker import Asker
from cores.checkpoints.find import shipped
from cores.evaluation import evaluator
from cores.evaluation.journal import Journal
from cores.processing import CoresProcessor
from cores.scenes.source import open_scenes

IMAGES, QUESTIONS = 16, 3
SPENT: Counter[str] = Counter()


def timed(owner: Any, name: str, part: str) -> None:
    """From now on the CPU seconds inside of a function are counted as a part's."""
    function: Callable[..., Any] = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            SPENT[part] += time.process_time() - start  # type: ignore[assignment]

    setattr(owner, name, counted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4, 16], help="asked together")
    args = parser.parse_args()
    processor = CoresProcessor.from_pretrained(shipped("cores-tiny"))
    words = len(processor.tokenizer)
    sizes = {"mllm_image_size": 224, "image_tokens": 256, "image_token_id": words, "segmenter_image_size": 1024}
    processor.sizes = replace(processor.sizes, **sizes)
    model = build(config(words, *processor.token_ids)).eval()
    cores.asking.asker.generate = by_heart(model.config.token_ids)  # type: ignore[attr-defined]
    for owner, name, part in (
        (Asker, "encode_images", "encode"),
        (cores.asking.asker, "read_prefixes", "prefix"),
        (cores.asking.asker, "generate", "answer"),
        (cores.asking.asker, "segment_answers", "decode"),
        (evaluator, "_count", "count"),
        (Journal, "write", "write"),
    ):
        timed(owner, name, part)
    source = open_scenes("test", size=512)
    asked = [s for s in map(source.__getitem__, range(4 * IMAGES)) if len(s.conversations) >= QUESTIONS][:IMAGES]
    samples = [
        replace(s, conversations=s.conversations[:QUESTIONS], meta={**s.meta, "kinds": s.meta["kinds"][:QUESTIONS]})
        for s in asked
    ]
    for pictures in args.pictures:
        SPENT.clear()
        asker = Asker(model, processor, max_new_tokens=TOKENS)
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as journal:
            start = time.process_time()
            how: dict[str, Any] = {"sanity": False, "records": True, "pictures": pictures, "keep": journal.write}
            evaluator.evaluate_asker(asker, samples, ("generated",), progress=False, **how)
            seconds = time.process_time() - start
        parts = ", ".join(
            f"{part} {SPENT[part]:.1f}" for part in ("encode", "prefix", "answer", "decode", "count", "write")
        )
        sys.stdout.write(
            f"{pictures:3} together: {IMAGES / seconds:.2f} pictures a second, {seconds:.1f} s: {parts}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
