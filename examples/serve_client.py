"""Ask a running `cores serve` from any program: HTTP and JSON, nothing of CoReS is needed on this side.

    cores serve &
    python examples/serve_client.py http://127.0.0.1:8000 docs/images/scene.png "What would you hold to pour the tea?"

Prints the answer while it is said, then asks for masks and writes each level's as a PNG into the current folder. A
server with keys wants one in the environment, as CORES_API_KEY.
"""

import base64
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def main(server: str, picture: Path, query: str, out: Path = Path()) -> None:
    """Stream one answer, then fetch its masks."""
    image = base64.b64encode(picture.read_bytes()).decode()
    for name, data in stream(server, {"image": image, "query": query}):
        if name == "text":
            sys.stdout.write(data["text"])
            sys.stdout.flush()
        elif name == "error":
            raise SystemExit(f"\n{data['error']}")

    asked = {"image": image, "queries": [query], "formats": ["png"]}
    (result,) = json.load(post(f"{server}/v1/segment", asked))["results"]
    sys.stdout.write(f"\n{result['status']}, {len(result['targets'])} targets\n")
    for number, target in enumerate(result["targets"], 1):
        for level in target["levels"]:
            file = out / f"{picture.stem}.{number}.{level['name']}.png"
            file.write_bytes(base64.b64decode(level["png"]))
            sys.stdout.write(f"{file}\n")


def stream(server: str, asked: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events: name and data of each, as they come."""
    name = ""
    for line in post(f"{server}/v1/chat", asked):
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def post(address: str, asked: dict[str, Any]) -> Any:
    """The response. What the server refuses ends the program in the server's own words."""
    headers = {"content-type": "application/json"}
    if key := os.environ.get("CORES_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    try:
        return urlopen(Request(address, json.dumps(asked).encode(), headers), timeout=300)
    except HTTPError as refused:
        raise SystemExit(f"{refused.code}: {json.load(refused)['error']}") from None


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), Path(sys.argv[2]), sys.argv[3])
