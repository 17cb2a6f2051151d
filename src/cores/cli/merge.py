"""`cores merge RUN --out DIR`: make a plain model of what a run learned, and prove that it says the same."""

import argparse
import sys
from pathlib import Path

from cores.cli import convert
from cores.cli.options import check_out, model_options, places_of


def main(argv: list[str]) -> int:
    """Run `cores merge`. Gives the exit code.

    Raises UserError for flags that do not go together and a folder that is there; CheckpointError and CheckFailed as
    `merge` or, with --from, `convert`.
    """
    parser = argparse.ArgumentParser(
        prog="cores merge",
        description="Fold what a run learned into its base's weights, in float32 on the CPU. The merged model answers "
        "about a drawn picture before it is kept; its masks must be the checkpoint's.",
        epilog="With --from, RUN is what a published program left of its training: pytorch_model.bin, or DeepSpeed's "
        "folder; it goes through `cores convert`.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run (its best), or one of its checkpoints")
    parser.add_argument(
        "--from", dest="kind", choices=("cores", "lisa"), help="whose training state it is, if not ours"
    )
    parser.add_argument(
        "--base",
        action="append",
        help="with --from: the LLaVA that it was trained from; else ROLE=PATH, where the run's base is now (bases, "
        "mllm, segmenter or start); its weights must be the same",
    )
    parser.add_argument("--clip", help="with --from: its CLIP, folder or hub id")
    parser.add_argument("--alpha", type=float, help="with --from: LoRA's alpha, which such a state does not say")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    model_options(parser)
    parser.set_defaults(device="cpu")
    args = parser.parse_args(argv)
    ours = args.kind is None and all("=" in text for text in args.base or [])
    places = places_of(args.base or []) if ours else {}
    args.base = None if ours or not args.base else args.base[-1]
    if args.kind is not None:
        return convert.main(convert.as_conversion(args))
    check_out(args.out, args.overwrite)
    convert.refuse_training_state(args)

    import torch

    from cores.checkpoints.runs.merging import merge
    from cores.checkpoints.runs.origin import moved
    from cores.checkpoints.runs.sharded import whole_checkpoint

    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    with moved(places), whole_checkpoint(args.run) as run:
        merged = merge(run, args.out, dtype=dtype, device=args.device, seed=args.seed, replace=args.overwrite)
    if not args.quiet:
        sys.stdout.write(
            f"{merged.checkpoint} -> {merged.folder}\n"
            f"the same masks: low-res logits differ by {merged.difference:.1e} relative, "
            f"masks as stored have an IoU of {merged.iou:.4f}\n"
            f"next: cores predict PICTURE QUERY --model {merged.folder}\n"
        )
    return 0
