"""By how many grey levels `data.pixels: close` and `draft` differ from `exact`, in SAM's square and in the tower's.

python benchmarks/pixels.py FOLDER

FOLDER holds JPEGs. Each is first made as wide as cameras make them; scenes, whose edges are sharp, come to them. What
is counted is all of both squares, their borders included.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from cores.processing.pixels import CLIP_STD, for_language, open_picture
from cores.processing.rasters import QuickReader
from cores.processing.segmenter_pixels import for_segmenter
from cores.processing.stored import ProcessorSizes
from cores.scenes.source import Scenes
from cores.segmenter_families import SEGMENTERS

WIDTHS = (3072, 4000, 5760)
SIZES = ProcessorSizes(mllm_image_size=224, image_tokens=256, image_token_id=1, segmenter_image_size=1024)


def seen(picture) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey levels (3, 1024, 1024) and (3, 224, 224), each with a shift that is the same for all ways."""
    large, small = for_segmenter(picture, 1024)[0], for_language(picture, 224, "pad")
    spread = torch.tensor(SEGMENTERS["sam"].std), torch.tensor(CLIP_STD) * 255
    return large * spread[0][:, None, None], small * spread[1][:, None, None]


def photographs(folder: Path, into: Path, width: int) -> list[Path]:
    found = []
    for file in sorted(folder.glob("*.jp*g")):
        with Image.open(file) as image:
            height = round(width * min(image.size) / max(image.size) / 8) * 8
            size = (width, height) if image.width > image.height else (height, width)
            found.append(into / f"{file.stem}-{width}.jpg")
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(found[-1], quality=92)
    return found


def scenes(into: Path, width: int) -> list[Path]:
    source, found = Scenes("val", 4), []
    for number in range(4):
        found.append(into / f"scene-{number}-{width}.jpg")
        source[number].image.resize((width, width), Image.Resampling.NEAREST).save(found[-1], quality=92)
    return found


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    lines = ["| pictures | way | SAM's: most | 99.9 % | mean | tower's: most | 99.9 % | mean |", "| --- " * 8 + "|"]
    with TemporaryDirectory() as folder:
        for width in WIDTHS:
            kinds = {
                "photographs": photographs(args.folder, Path(folder), width),
                "scenes": scenes(Path(folder), width),
            }
            for (kind, files), draft in ((one, draft) for one in kinds.items() for draft in (False, True)):
                gaps: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
                for file in files:
                    quick = QuickReader(SIZES, draft)(file)
                    for gap, ours, exact in zip(gaps, seen(quick), seen(open_picture(file)), strict=True):
                        gap.append((ours - exact).abs().numpy().ravel())
                told = [
                    f"{each.max():.0f} | {np.percentile(each, 99.9):.0f} | {each.mean():.3f}"
                    for each in map(np.concatenate, gaps)
                ]
                lines.append(f"| {kind}, {width} wide | {'draft' if draft else 'close'} | {' | '.join(told)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
