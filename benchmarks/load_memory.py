"""How much memory of a node loading a model for training takes, over what its weights are, for each way to split it.

python benchmarks/load_memory.py [--gigabytes 1] [--processes 2] [--out benchmarks/load_memory.txt]

A language model of that size with random weights in float32 is written, then loaded by as many processes as one would
train with, on the CPU. Their memory (shared pages counted once) is read 50 times a second; what they had before is
taken off. Where weights are cut, the pieces of all ranks, once the weights together, are memory of the node here and
of the GPUs elsewhere: the last column is without them. Pages of the file itself are counted, though the system may
take them back at any time.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

WAYS = {"ddp": "", "fsdp2": "trainer.fsdp=fsdp2", "zero3": "trainer.deepspeed=zero3"}
RECIPE = """
model: {{bases: {bases}, train: [lora, projection, refiner, mask_decoder]}}
lora: {{r: 8, alpha: 16}}
prompt: {{format: plain, exemplars: none}}
data: {{sources: {{scenes: [scenes|train]}}}}
"""
WIDTH, INNER = 1024, 2752
LAYER = 4 * WIDTH * WIDTH + 3 * WIDTH * INNER  # weights of one


def write_base(folder: Path, gigabytes: float) -> Path:
    """The tiny model with a language model of this many GB; gives its recipe."""
    from transformers import AutoTokenizer

    from cores.checkpoints.find import shipped
    from cores.modeling.configuration import CoresConfig
    from cores.modeling.mllms import make_mllm
    from cores.modeling.segmenters import make_segmenter

    tiny = shipped("cores-tiny")
    config = CoresConfig.from_pretrained(tiny)
    text = config.mllm_config.text_config
    text.update({"hidden_size": WIDTH, "intermediate_size": INNER, "head_dim": 128})
    text.update({"num_attention_heads": 8, "num_key_value_heads": 8})
    text.num_hidden_layers = round(gigabytes * 1e9 / 4 / LAYER)
    make_mllm(config.mllm_config).save_pretrained(folder / "bases" / "mllm")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder / "bases" / "mllm")
    make_segmenter(config.segmenter_config).save_pretrained(folder / "bases" / "segmenter")
    (folder / "recipe.yaml").write_text(RECIPE.format(bases=folder / "bases"))
    return folder / "recipe.yaml"


def one_rank(way: str, file: Path) -> None:
    """Load as `cores train` does, once the file `go` is there."""
    from cores.recipe import load_recipe
    from cores.training.arguments import training_arguments
    from cores.training.ranks import end_at_once, leave
    from cores.training.sharding import shard
    from cores.training.start import start
    from cores.training.trainable import choose_parts
    from cores.training.zero3 import loaded_whole, partition

    recipe = load_recipe(file, [WAYS[way]] if WAYS[way] else [])
    arguments = training_arguments(recipe, file.parent / "run", device="cpu", quiet=True)
    (file.parent / f"rank{arguments.process_index}").write_text(str(os.getpid()))
    while not (file.parent / "go").exists():
        time.sleep(0.02)
    with loaded_whole(arguments):
        _, model, _ = start(recipe, 0, empty=way != "ddp" and arguments.process_index > 0)
        choose_parts(model, recipe.model.train, recipe.lora)
    if way == "fsdp2":
        shard(model, arguments.device)
    elif way == "zero3":
        partition(model, arguments)
    leave()
    end_at_once(0)


def memory(pids: list[int]) -> float:
    """Of these processes together, in bytes; 0 when one has ended."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return float(total)


def measure(way: str, file: Path, processes: int) -> float:
    """The most memory that loading adds, in bytes. Raises CalledProcessError when a process fails."""
    for old in (*file.parent.glob("rank*"), file.parent / "go"):
        old.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29541"]
    command += [__file__, "--rank", way, "--file", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["MALLOC_MMAP_THRESHOLD_"] = "1048576"  # else glibc keeps room for tensors that are gone: 0.25 x more
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    while len(found := list(file.parent.glob("rank*"))) < processes and running.poll() is None:
        time.sleep(0.1)
    time.sleep(1)
    pids = [int(one.read_text()) for one in found]
    before = most = memory(pids)
    (file.parent / "go").touch()
    while running.poll() is None:
        most = max(most, memory(pids))
        time.sleep(0.02)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    return most - before


def main() -> int:
    """Exit code 1 when FSDP2 or ZeRO-3 takes more than 1.2 times the weights, the pieces not counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rank", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        one_rank(args.rank, args.file)
    folder = Path(tempfile.mkdtemp())
    try:
        file = write_base(folder, args.gigabytes)
        weights = sum(one.stat().st_size for one in folder.rglob("*.safetensors"))
        lines = [f"{datetime.now(UTC):%Y-%m-%d}: python {' '.join(sys.argv)}"]
        lines.append(f"weights {weights / 1e9:.2f} GB in float32, {args.processes} processes on the CPU")
        ratios = {way: measure(way, file, args.processes) / weights for way in WAYS}
    finally:
        shutil.rmtree(folder)
    lines += ["way    most, in weights   without the pieces"]
    lines += [f"{way:6} {ratio:12.2f} {ratio - (way != 'ddp'):16.2f}" for way, ratio in ratios.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    if args.out is not None:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if max(ratios["fsdp2"], ratios["zero3"]) <= 2.2 else 1


if __name__ == "__main__":
    sys.exit(main())
