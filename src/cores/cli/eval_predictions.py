"""`cores eval PREDICTIONS --against SOURCE`: score the masks of any other program."""

import argparse
import sys
from pathlib import Path

from cores.cli.eval_results import write_results
from cores.cli.options import taken_folder
from cores.errors import UserError


def score(args: argparse.Namespace) -> int:
    """Score the predictions that `args.model` names. Gives the exit code.

    Raises DataError for predictions that cannot be used, or are missing for a question.
    """
    from cores import __version__
    from cores.data.sources import open_source
    from cores.evaluation.journal import Journal, begin, held
    from cores.evaluation.part import Part
    from cores.evaluation.predictions import Predictions, judge_predictions

    if args.model is None or args.on:
        raise UserError("--against SOURCE: name a file or folder of predictions, and no --on")
    if args.protocol == "published":
        raise UserError("--protocol published: is of answers that are given to a model: leave it out for predictions")
    name: str = args.against
    part = Part(open_source(name, args.data, evaluation=args.texts == "first"), args.limit)
    predictions = Predictions.read(Path(args.model))
    about = {"model": args.model, "answers": "generated", "seed": str(args.seed), "cores": __version__}
    about |= {"protocol": args.protocol, "texts": args.texts}
    with taken_folder(args.out, args.overwrite) as out, held(out) as home:
        begin(home, about, replace=True, go_on=False)
        with Journal(home) as journal:
            journal.source = name
            for number in range(len(part)):
                journal.write([judge_predictions(predictions, number, part.source[number], name)])
        if predictions.unused and not args.limit:
            some = ", ".join(image for image, _ in sorted(predictions.unused, key=str)[:3])
            sys.stderr.write(f"{len(predictions.unused)} predictions are for no question of {name}: {some}\n")
        write_results(args, about, home, {name: part}, ("generated",))
    return 0
