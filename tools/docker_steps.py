"""The Dockerfile's steps without Docker: in a fresh virtual environment, a folder stands for the container's /.

    python tools/docker_steps.py --into /tmp/image --build-arg TORCH_INDEX=https://pypi.org/simple

Takes the interpreter that runs it in place of FROM's. Then starts the ENTRYPOINT, waits until the HEALTHCHECK passes,
asks about a picture, and stops it as `docker stop` does. What of a container it cannot try: the base's system
libraries, USER, VOLUME, and the network.
"""

import argparse
import base64
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PORT = "8000"
KNOWN = ("FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT")


def steps(text: str) -> Iterator[tuple[str, str]]:
    """(instruction, what it says) of a Dockerfile. Raises SystemExit for an instruction that is not known here."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        name, _, rest = line.strip().partition(" ")
        if name not in KNOWN:
            raise SystemExit(f"Dockerfile: {name} is not known to this script")
        yield name, rest.strip()


class Container:
    """A folder in the place of a container's /; `into`: where, `args`: those of `docker build`."""

    def __init__(self, into: Path, args: dict[str, str]) -> None:
        self.root, self.args = into / "root", args
        self.env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.folder = self.root
        self.health: list[str] = []
        self.entry: list[str] = []
        self.root.mkdir(parents=True)
        venv.create(into / "python", with_pip=True)
        self.env["PATH"] = f"{into / 'python' / 'bin'}{os.pathsep}{self.env['PATH']}"

    def inside(self, path: str) -> Path:
        """Where a path of the container's is here."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.folder / path

    def filled(self, text: str) -> str:
        """With the values of ARG and ENV in the place of their names."""
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self.env.get(found[1], ""), text)

    def take(self, name: str, said: str) -> None:
        """One step."""
        if name == "ARG":
            key, _, value = said.partition("=")
            self.env[key] = self.args.get(key, self.filled(value))
        elif name == "ENV":
            for key, value in (pair.split("=", 1) for pair in shlex.split(said)):
                self.env[key] = str(self.inside(value)) if value.startswith("/") else self.filled(value)
        elif name == "WORKDIR":
            self.folder = self.inside(said)
            self.folder.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = said.split()
            for source in sources:
                self.copy(ROOT / source, self.inside(target))
        elif name == "RUN":
            subprocess.run(["/bin/sh", "-ec", said], cwd=self.folder, env=self.env, check=True)
        elif name == "HEALTHCHECK":
            self.health = json.loads(said.partition("CMD ")[2])
        elif name == "ENTRYPOINT":
            self.entry = json.loads(said)

    def copy(self, source: Path, target: Path) -> None:
        """A file into a folder, or a folder as one."""
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)

    def try_out(self) -> dict[str, object]:
        """What the server answers about a grey picture; it is stopped again. Raises SystemExit when it is not well."""
        with subprocess.Popen([*self.entry, "--port", PORT], cwd=self.folder, env=self.env) as running:
            try:
                self.healthy(running)
                file = io.BytesIO()
                Image.new("RGB", (64, 64), "grey").save(file, "PNG")
                asked = {"image": base64.b64encode(file.getvalue()).decode(), "queries": ["the grey square"]}
                request = urllib.request.Request(
                    f"http://127.0.0.1:{PORT}/v1/segment",
                    json.dumps(asked).encode(),
                    {"Content-Type": "application/json"},
                )
                found: dict[str, object] = json.load(urllib.request.urlopen(request))["results"][0]
            finally:
                running.send_signal(signal.SIGTERM)
                code = running.wait(60)
        if code:
            raise SystemExit(f"the server ended with {code}")
        return found

    def healthy(self, running: subprocess.Popen[bytes]) -> None:
        """Wait until it is."""
        for _ in range(240):
            if running.poll() is not None:
                raise SystemExit(f"the server ended with {running.returncode} before it was ready")
            done = subprocess.run(self.health, env=self.env, capture_output=True)
            if done.returncode == 0:
                return
            time.sleep(0.5)
        raise SystemExit("the server was never ready")


def main() -> int:
    """Run it. Gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as of docker build")
    args = parser.parse_args()
    container = Container(args.into.resolve(), dict(one.split("=", 1) for one in args.build_arg))
    for number, (name, said) in enumerate(steps((ROOT / "Dockerfile").read_text("utf-8")), 1):
        sys.stdout.write(f"step {number}: {name} {said}\n")
        sys.stdout.flush()
        container.take(name, said)
    found = container.try_out()
    sys.stdout.write(f"answered: {found['status']}: {found['answer']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
