"""`cores convert --from KIND --src SRC --out DIR`: published checkpoints, and bases for training, to our folders."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.options import check_out, model_options
from cores.errors import UserError

if TYPE_CHECKING:
    from cores.checkpoints.published.conversion import Converted
    from cores.checkpoints.published.plan import Plan

KINDS = ("cores", "lisa", "llava", "llava-delta", "sam", "sam2")
CHAIN = ("cores", "lisa")
NEEDS = {
    "cores": ("src", "clip"),
    "lisa": ("src", "clip"),
    "llava": ("src", "clip"),
    "llava-delta": ("base", "delta", "clip"),
    "sam": ("src",),
    "sam2": ("src",),
}
ALPHA = 16.0  # the published programs'


def main(argv: list[str]) -> int:
    """Run `cores convert`. Gives the exit code.

    Raises UserError for flags that do not go together and a folder that is there; CheckpointError and CheckFailed for
    what cannot be converted.
    """
    parser = argparse.ArgumentParser(
        prog="cores convert",
        description="Write a published checkpoint as a model folder. Every tensor is accounted for before the first "
        "one is read, in a table that is printed and kept as keys.tsv; tensors pass one by one, in little memory, "
        "and keep their type unless --dtype says another.",
        epilog="cores and lisa: what their programs wrote, merged or as a training state (pytorch_model.bin or "
        "DeepSpeed's shards, with --base). llava, llava-delta, sam, sam2 (2.1 as well): bases for `cores train`, in "
        "transformers' format.",
    )
    parser.add_argument("--from", dest="kind", choices=KINDS, required=True, help="whose checkpoint it is")
    parser.add_argument("--src", help="folder, file, or hub id such as xinlai/LISA-7B-v1 or owner/name@revision")
    parser.add_argument("--clip", help="folder or hub id of its CLIP, such as openai/clip-vit-large-patch14")
    parser.add_argument("--base", help="llava-delta: the LLaMA; a training state: the LLaVA that it was trained from")
    parser.add_argument("--delta", help="llava-delta: the released differences, folder or hub id")
    parser.add_argument(
        "--alpha", type=float, help=f"of LoRA in a training state, which does not say it (default: {ALPHA:g})"
    )
    parser.add_argument(
        "--format",
        choices=("llava_v1", "llava_llama_2", "llava_v0"),
        help="how it was spoken to in training (default: llava_v1)",
    )
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    model_options(parser)
    parser.set_defaults(device="cpu")
    args = parser.parse_args(argv)
    check_args(args)
    check_out(args.out, args.overwrite)
    done = _convert(args)
    kept = f"{len(done.plan.places)} tensors, every key accounted for in {args.out / 'keys.tsv'}"
    sys.stdout.write(f"{args.src or args.delta} -> {args.out}: {kept}\n")
    if done.proof is not None:
        sys.stdout.write(
            f"LoRA of rank {done.rank} folded in with alpha {args.alpha or ALPHA:g}; the same masks on a drawn "
            f"picture: low-res logits differ by {done.proof.difference:.1e} relative, IoU {done.proof.iou:.4f}\n"
        )
    if args.kind in CHAIN:
        sys.stdout.write(f"next: cores check {args.out}\n")
    return 0


def check_args(args: argparse.Namespace) -> None:
    """Raise UserError that names the flags which a kind needs, and those which do nothing for it."""
    needed = NEEDS[args.kind]
    missing = [f"--{name}" for name in needed if getattr(args, name) is None]
    if missing:
        raise UserError(f"--from {args.kind} needs {' and '.join(missing)} as well")
    used = {*needed, *(("base", "alpha", "format") if args.kind in CHAIN else ())}
    flags = ("src", "clip", "base", "delta", "alpha", "format")
    idle = [f"--{name}" for name in flags if name not in used and getattr(args, name) is not None]
    if idle:
        raise UserError(f"--from {args.kind} has no use for {' and '.join(idle)}: leave it out")
    if args.alpha is not None and not args.alpha > 0:
        raise UserError(f"--alpha {args.alpha:g}: expected a number above 0, as in training")


def as_conversion(args: argparse.Namespace) -> list[str]:
    """`cores merge RUN --from KIND ...` as the flags of this verb. Raises UserError when --base is not given."""
    if args.base is None:
        raise UserError(f"--from {args.kind} needs --base: the LLaVA that the state was trained from")
    flags = {"from": args.kind, "src": args.run, "clip": args.clip, "base": args.base, "alpha": args.alpha}
    flags |= {"dtype": args.dtype, "out": args.out, "device": args.device, "seed": args.seed}
    given = [part for name, value in flags.items() if value is not None for part in (f"--{name}", str(value))]
    return given + [f"--{name}" for name in ("overwrite", "quiet") if getattr(args, name)]


def refuse_training_state(args: argparse.Namespace) -> None:
    """Raise UserError for `cores merge` of a published program's state without --from, and of ours with its flags."""
    idle = [f"--{name}" for name in ("base", "clip", "alpha") if getattr(args, name) is not None]
    foreign = args.run.is_file() or (args.run / "zero_to_fp32.py").is_file()
    if foreign or idle:
        what = f"{args.run}: is a training state of another program" if foreign else f"{' and '.join(idle)} is for one"
        raise UserError(f"{what}: say whose with --from cores or --from lisa, --base LLAVA and --clip CLIP")


def _convert(args: argparse.Namespace) -> "Converted":
    import torch

    from cores.checkpoints.published import convert_bases, convert_sam2
    from cores.checkpoints.published.conversion import convert
    from cores.checkpoints.published.plan import summary

    def told(plan: "Plan") -> None:
        if not args.quiet:
            sys.stdout.write(summary(plan.lines))
            sys.stdout.flush()

    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    how = {"dtype": dtype, "replace": args.overwrite, "quiet": args.quiet, "told": told}
    if args.kind == "sam":
        return convert_bases.convert_sam(args.src, args.out, **how)
    if args.kind == "sam2":
        return convert_sam2.convert_sam2(args.src, args.out, **how)
    if args.kind == "llava":
        return convert_bases.convert_llava(args.src, args.clip, args.out, **how)
    if args.kind == "llava-delta":
        return convert_bases.convert_llava(args.delta, args.clip, args.out, base=args.base, **how)
    how |= {
        "device": args.device,
        "seed": args.seed,
        "base": args.base,
        "alpha": args.alpha or ALPHA,
        "prompt_format": args.format or "llava_v1",
    }
    return convert(args.kind, args.src, args.clip, args.out, **how)
