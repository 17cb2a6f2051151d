"""`cores check MODEL`: say what a folder is, hold its parts to each other, ask it one question; exit 1 if unusable."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from cores.cli.options import model_options
from cores.errors import CheckpointError

if TYPE_CHECKING:
    from cores.checkpoints.checking import Facts

QUERY = "disc"
FITS = {"pad": "padded", "crop": "cropped"}


def main(argv: list[str]) -> int:
    """Run `cores check`. Gives the exit code: 1 for a model that cannot be used, or is odd with --strict.

    Raises CheckpointError when there is no such folder, UserError for a device that is not there.
    """
    parser = argparse.ArgumentParser(
        prog="cores check",
        description="Say what a model folder is, whether names, shapes and ids of its parts agree, whether its "
        "grounding tokens look trained, and what it answers about a drawn picture.",
        epilog="exit code: 0 it can be used, 1 it cannot (or, with --strict, something looks odd), 2 there is no such "
        "folder",
    )
    parser.add_argument("model", nargs="?", help="model folder, run folder or hub id (default: what comes with cores)")
    parser.add_argument("--strict", action="store_true", help="exit 1 as well when something looks odd")
    parser.add_argument("--static", action="store_true", help="only names, shapes and ids: reads no weights")
    model_options(parser)
    args = parser.parse_args(argv)

    from cores.checkpoints.checking import check_static
    from cores.checkpoints.find import find

    folder = find(args.model)  # a mistake of the user's, exit 2, when it is not there
    try:
        facts = check_static(folder)
        _say(about(facts))
        odd = facts.warnings + ([] if args.static else _try(args, facts))
    except CheckpointError as error:
        sys.stderr.write(f"cores: {error}\n{folder}: cannot be used\n")
        return 1
    for line in odd:
        sys.stdout.write(f"warning: {line}\n")
    sys.stdout.write(f"{folder}: can be used\n")
    return 1 if odd and args.strict else 0


def about(facts: "Facts") -> dict[str, str]:
    """What a folder is, by the name of each fact; pixels are px, parameters in millions."""
    from cores.modeling.mllms import mllm_class

    config: Any = facts.config
    sizes, prompt = facts.processor.sizes, facts.processor.prompt
    levels = [f"{level['name']} {level['token']} (id {level['token_id']})" for level in config.levels]
    numbers = sum(facts.dtypes.values())
    stored = ", ".join(f"{count / numbers:.0%} {name}" for name, count in sorted(facts.dtypes.items()))
    text = config.mllm_config.text_config
    family = config.mllm_config.model_type
    joint = f"projector {getattr(config.mllm_config, 'projector', 'mlp2x_gelu')}" if family == "llava" else family
    if not mllm_class(family).packs:
        joint += ", a row a conversation (it cannot pack: slower)"
    fit, places = FITS[sizes.clip_fit], f"{sizes.mllm_image_size} px as {sizes.image_tokens} tokens"
    if sizes.pixel_rule != "square":
        fit, places = f"as {sizes.pixel_rule} takes them", "pictures by their size"
    return {
        "folder": str(facts.folder),
        "is": facts.kind,
        "levels": f"{len(levels)}: {' -> '.join(levels)}",
        "token refiner": config.refiner,
        "style": config.style,
        "prompt": f"{prompt.format}, exemplars {prompt.exemplars}, pictures {fit}",
        "language model": f"{text.num_hidden_layers} layers, width {text.hidden_size}, {text.vocab_size} rows, "
        f"{joint}; sees {places}",
        "segmenter": f"{sizes.segmenter}, {trunk(config.segmenter_config)}; sees {sizes.segmenter_image_size} px",
        "parameters": f"{facts.parameters / 1e6:.1f} million; stored {numbers / 1e6:.1f} million: {stored}",
    }


def trunk(config: Any) -> str:
    """What a segmenter's image encoder is made of, in words."""
    found = getattr(config.vision_config, "backbone_config", config.vision_config)
    layers = sum(getattr(found, "blocks_per_stage", [getattr(found, "num_hidden_layers", 0)]))
    return (
        f"{layers} layers, width {found.hidden_size}" if layers else str(getattr(found, "architecture", "no layers"))
    )


def _try(args: argparse.Namespace, facts: "Facts") -> list[str]:
    """Read and load the model, look at its grounding rows, ask it with given answers and once freely.

    Gives what looks odd. Raises CheckpointError when a tensor is broken, or a level gives no mask.
    """
    from cores.checkpoint_errors import checkpoint_errors
    from cores.checkpoints.checking import check_weights, untrained_rows
    from cores.checkpoints.load import load
    from cores.checkpoints.probe import drawn_picture, probe, refuse_silent
    from cores.checkpoints.runs.fingerprint import fingerprint
    from cores.inference.facade import Cores

    _say({"fingerprint": fingerprint(facts.folder), "weights": check_weights(facts.folder)})
    cores = Cores(*load(facts.folder, args.device, args.dtype), args.seed)
    model: Any = cores.model
    ids = {level["token"]: level["token_id"] for level in model.config.levels}
    odd = []
    for name, layer in (("embedding", model.get_input_embeddings()), ("head", model.get_output_embeddings())):
        for token, why in untrained_rows(layer.weight, ids).items():
            odd.append(f"{token}: its row in the {name} looks untrained: {why}")
    _say({"grounding rows": "look untrained" if odd else "look trained"})
    names = [level["name"] for level in model.config.levels]
    with checkpoint_errors(facts.folder, "be asked", "the config is not that of its weights"):
        given = probe(model, cores.processor, args.seed)
        refuse_silent(facts.folder, names, given)
        (found,) = cores.segment(drawn_picture(), [QUERY])
    shares = (f"{name} {float((logits > 0).float().mean()):.1%}" for name, logits in zip(names, given, strict=True))
    _say({"given answers": f"cover {' -> '.join(shares)} of the picture"})
    covered = f"its mask covers {found.mask.mean():.1%} of the picture" if found.targets else "no mask"
    _say({f"asked for {QUERY!r}": f"{found.answer!r} ({found.status}, {covered})"})
    return odd


def _say(facts: dict[str, str]) -> None:
    for name, value in facts.items():
        sys.stdout.write(f"{name + ':':16} {value}\n")
    sys.stdout.flush()
