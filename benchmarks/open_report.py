"""How long a browser takes to open an evaluation's report, and to find answers in it.

    python benchmarks/open_report.py [--questions 20000] [--report REPORT.html]

Without a report, one is made of the truth of a few scenes, over and over. Needs Chromium (`make browser`) and
playwright (`pip install cores[dev]`).
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import sync_playwright

from cores.evaluation.predictions import Predictions, judge_predictions
from cores.evaluation.report import Chapter, render
from cores.evaluation.result import Result, Score
from cores.scenes.source import open_scenes

SCENES, TIMES = 16, 7


def written(path: Path, questions: int) -> Path:
    """A report of so many questions."""
    source = open_scenes("test", SCENES)
    truth = Predictions(
        {
            (sample.name, one.turns[0].query): [target.mask for target in one.turns[0].targets]
            for sample in map(source.__getitem__, range(SCENES))
            for one in sample.conversations
        }
    )
    few = [record for n in range(SCENES) for record in judge_predictions(truth, n, source[n]).records]
    answers = [replace(few[n % len(few)], sample=n) for n in range(questions)]
    result = Result({answers[0].mode: Score()}, SCENES, questions)
    chapter = Chapter("scenes|test", result, lambda n: source[n % SCENES].image, answers=answers)
    path.write_text(render("Many questions", {}, [chapter]), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=20_000)
    parser.add_argument("--report", type=Path, help="time this one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        report = args.report or written(Path(folder) / "report.html", args.questions)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        seen, loaded, found = [], [], []
        for _ in range(TIMES):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(report.resolve().as_uri())
            seen.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            loaded.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
            start = time.perf_counter()
            page.fill(".filter input", "cup")
            page.wait_for_selector(".filter output:has-text('answers')")
            found.append(1000 * (time.perf_counter() - start))
            page.close()
        browser.close()
        sys.stdout.write(f"{report.stat().st_size / 1e6:.1f} MB, median of {TIMES}:\n")
        for name, values in (("first seen", seen), ("loaded", loaded), ("answers found", found)):
            sys.stdout.write(
                f"{name:14} {statistics.median(values):6.0f} ms ({min(values):.0f} to {max(values):.0f})\n"
            )


if __name__ == "__main__":
    main()
