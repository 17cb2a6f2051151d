"""`cores env`: versions and devices, to be put into bug reports."""

import argparse
import os
import platform
import sys
from importlib import metadata

from cores import __version__

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "deepspeed",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "pillow",
    "pycocotools",
)


def main(argv: list[str]) -> int:
    """Run `cores env`. Gives the exit code, 0."""
    argparse.ArgumentParser(prog="cores env", description="Print versions and devices.").parse_args(argv)
    import torch

    lines = {"cores": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            lines[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            lines[package] = "not installed"
    lines["cpu"] = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        lines[f"cuda:{number}"] = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        lines["cuda"] = "none"
    sys.stdout.write("".join(f"{name:16} {value}\n" for name, value in lines.items()))
    return 0
