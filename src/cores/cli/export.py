"""`cores export MODEL --out DIR`: a model in the layout of the published programs, so that they can read it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.options import check_out

if TYPE_CHECKING:
    from cores.checkpoints.published.plan import Line


def main(argv: list[str]) -> int:
    """Run `cores export`. Gives the exit code.

    Raises UserError for a folder that is there, CheckpointError for a model that the layout cannot hold.
    """
    parser = argparse.ArgumentParser(
        prog="cores export",
        description="Write a model folder in the layout of the CoReS and LISA programs: pytorch_model.bin, "
        "config.json and tokenizer.model, and CLIP's tower in clip/. Every tensor keeps its numbers and its type.",
        epilog="A model that the layout cannot hold is refused, by the names of the fields.",
    )
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--tokenizer", type=Path, help="LLaMA's tokenizer.model (default: the model folder's own)")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    parser.add_argument("--quiet", action="store_true", help="no table, only results and errors")
    args = parser.parse_args(argv)
    check_out(args.out, args.overwrite)

    from cores.checkpoints.published.exporting import export
    from cores.checkpoints.published.plan import summary

    def told(lines: "list[Line]") -> None:
        if not args.quiet:
            sys.stdout.write(summary(lines))
            sys.stdout.flush()

    done = export(args.model, args.out, tokenizer=args.tokenizer, replace=args.overwrite, told=told)
    for line in done.unsaid:
        sys.stderr.write(f"cores: the layout does not say that {line}: tell whoever reads it\n")
    sys.stdout.write(f"{args.model} -> {args.out}; CLIP's tower is in {args.out / 'clip'}\n")
    return 0
