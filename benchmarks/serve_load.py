"""How `cores serve` holds under load: many clients at once, none lost or mixed up, memory bounded.

    python benchmarks/serve_load.py --clients 64 --seconds 60

Starts a server with the model that comes with cores, in a process of its own. Every client asks one question after the
other, each about a picture and a thing of its own, and compares the answer with what the model says when nobody else
asks. Some leave before they are answered, some stream. Prints requests, latencies, batches, and the server's memory;
ends with 1 when a request was lost or mixed up, or memory grew by more than 400 MB.
"""

import argparse
import asyncio
import io
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

import cores
from cores import masks
from cores.scenes.source import open_scenes

PICTURES = 24
LEAVE = 0.05  # share of requests whose client leaves early
GROWTH = 400  # MB
STREAM = 0.2  # share of requests that are streamed


def questions():
    """(picture as PNG, query, the answer and its mask when nobody else asks), of scenes."""
    model, found = cores.load(), []
    for sample in list(open_scenes("test", n=PICTURES)):
        file = io.BytesIO()
        sample.image.save(file, "PNG")
        queries = list(dict.fromkeys(one.turns[0].query for one in sample.conversations))[:3]
        for query, answer in zip(queries, model.segment(sample.image, queries), strict=True):
            found.append((file.getvalue(), query, answer.answer, answer.mask))
    return found


class Load:
    """What clients saw. `seconds`: latencies of whole answers."""

    def __init__(self, address, asked):
        self.address, self.asked = address, asked
        self.seconds, self.counts, self.wrong = [], Counter(), []

    async def client(self, number, until):
        """Ask until it is time, what comes next by a draw of one's own."""
        draw = random.Random(number)
        async with httpx.AsyncClient(timeout=120) as client:
            while time.monotonic() < until:
                picture, query, answer, mask = draw.choice(self.asked)
                streamed, leaves = draw.random() < STREAM, draw.random() < LEAVE
                files = {"image": ("photo.png", picture, "image/png")}
                path = "/v1/chat" if streamed else "/v1/segment"
                began = time.monotonic()
                post = client.post(f"{self.address}{path}", files=files, data={"query": query})
                try:
                    got = await (asyncio.wait_for(post, draw.uniform(0, 0.2)) if leaves else post)
                except TimeoutError:
                    self.counts["left"] += 1
                    continue
                except httpx.TransportError as error:
                    self.counts["lost"] += 1
                    self.wrong.append(repr(error))
                    continue
                self.counts[str(got.status_code)] += 1
                if got.status_code == 503:
                    await asyncio.sleep(float(got.headers["retry-after"]) * draw.random())
                    continue
                if got.status_code == 200:
                    self.seconds.append(time.monotonic() - began)
                    self.compare(got.text, streamed, query, answer, mask)

    def compare(self, text, streamed, query, answer, mask):
        """Is it the answer to this question? Its words exactly, its mask but for rounding."""
        result = json.loads(re.search("event: result\ndata: (.*)", text)[1] if streamed else text)
        found = result if streamed else result["results"][0]
        if (found["query"], found["answer"]) != (query, answer):
            self.counts["mixed up"] += 1
            self.wrong.append((query, answer, found["query"], found["answer"]))
        elif (masks.decode(found["mask"]) != mask).mean() > 0.01:
            self.counts["another mask"] += 1

    async def run(self, clients, seconds, watch):
        """All clients for so long; `watch()` meanwhile, once a second."""
        until = time.monotonic() + seconds
        asking = [asyncio.create_task(self.client(number, until)) for number in range(clients)]
        while time.monotonic() < until:
            watch()
            await asyncio.sleep(1)
        await asyncio.gather(*asking)


def memory(process):
    """Resident memory of a process in MB (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def ready(address):
    """Wait until questions are answered."""
    for _ in range(1200):
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server was never ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    asked = questions()
    command = [sys.executable, "-m", "cores", "serve", "--port", "0", "--no-page"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        address = server.stdout.readline().split()[2]
        ready(address)
        load, used = Load(address, asked), [memory(server.pid)]
        asyncio.run(load.run(args.clients, args.seconds, lambda: used.append(memory(server.pid))))
        counts = httpx.get(f"{address}/metrics").text
        server.terminate()
    told = {name: float(re.search(rf"^{name} (\S+)", counts, re.M)[1]) for name in (
        "cores_batch_questions_sum", "cores_batch_questions_count", "cores_cache_bytes", "cores_working",
    )}  # fmt: skip
    times = sorted(load.seconds)
    share = {name: times[int(len(times) * part)] for name, part in (("half", 0.5), ("95 %", 0.95))}
    lines = [
        f"{args.clients} clients, {args.seconds:g} s: {dict(load.counts)}",
        f"{len(times) / args.seconds:.1f} answers a second; half within {share['half']:.2f} s, 95 % within "
        f"{share['95 %']:.2f} s, all within {times[-1]:.2f} s",
        f"{told['cores_batch_questions_sum'] / told['cores_batch_questions_count']:.1f} questions a batch",
        f"memory: {used[0]:.0f} MB when ready, at most {max(used):.0f} MB, {used[-1]:.0f} MB at the end; "
        f"features kept {told['cores_cache_bytes'] / 1e6:.0f} MB",
        f"exit code {server.returncode}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    for wrong in load.wrong[:5]:
        sys.stdout.write(f"wrong: {wrong}\n")
    bad = (
        max(used) - used[0] > GROWTH
        or load.counts["lost"]
        or load.counts["mixed up"]
        or server.returncode
        or told["cores_working"]
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
