"""Memory and time of an evaluation's own work over many pictures: writing records, adding up, intervals, the report.

    python benchmarks/eval_memory.py --images 20000

No model: the answers are the truth of a few scenes, over and over, in one mode. Memory is the process's peak, less
what it had when everything was imported.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from cores.evaluation.figures import figures
from cores.evaluation.journal import Journal, begin, found_in, held, read_back
from cores.evaluation.predictions import Predictions, judge_predictions
from cores.evaluation.report import Chapter
from cores.evaluation.result_files import KeptAnswers, write
from cores.process_memory import peak_memory
from cores.scenes.source import open_scenes

SCENES, NAME = 16, "scenes|test"


def peak() -> float:
    """The process's peak memory so far, in MB."""
    return peak_memory() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    count = parser.parse_args().images
    source = open_scenes("test", SCENES)
    turns = [
        (sample.name, one.turns[0])
        for sample in map(source.__getitem__, range(SCENES))
        for one in sample.conversations
    ]
    truth = Predictions({(name, turn.query): [target.mask for target in turn.targets] for name, turn in turns})
    judged = [judge_predictions(truth, number, source[number]) for number in range(SCENES)]
    before = peak()
    with tempfile.TemporaryDirectory() as folder, held(Path(folder)) as home:
        begin(home, {}, replace=True)
        start = time.process_time()
        with Journal(home) as journal:
            journal.source = NAME
            for number in range(count):
                one = judged[number % SCENES]
                records = [replace(record, sample=number) for record in one.records]
                journal.write([replace(one, number=number, records=records)])
        written = time.process_time()
        places = found_in(home)
        total = figures(read_back(places, NAME), ("generated",))
        added = time.process_time()
        picture = lambda number: source[number % SCENES].image  # noqa: E731
        chapter = Chapter(NAME, total.result, picture, "", total, KeptAnswers(places, NAME))
        write(Path(folder), {"model": "none"}, [chapter])
        end = time.process_time()
        size = (Path(folder) / "report.html").stat().st_size / 1e6
        answers = (Path(folder) / "answers.jsonl").stat().st_size / 1e6
    result = total.result
    print(  # noqa: T201
        f"{result.images} pictures, {result.questions} questions: {peak() - before:.0f} MB beside the imports; "
        f"writing {written - start:.0f} s, adding up {added - written:.0f} s, files {end - added:.0f} s of CPU; "
        f"report.html {size:.1f} MB, answers.jsonl {answers:.0f} MB"
    )


if __name__ == "__main__":
    main()
