"""The command line: a table of verbs. A verb's code, and torch with it, is imported when the verb runs.

Exit codes: 0 done, 1 a check or comparison failed, 2 the user's mistake, 130 interrupted, 143 told to stop.
"""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from cores import __version__
from cores.cli.signals import stoppable
from cores.cli.terminal import escaped_output, printable
from cores.errors import CheckFailed, CoresError
from cores.whole import FULL

VERBS = {
    "train": ("cores.cli.train:main", "train a model by a recipe"),
    "merge": ("cores.cli.merge:main", "make a plain model of a training run"),
    "eval": ("cores.cli.eval:main", "score a model on questions with known masks"),
    "ablate": ("cores.cli.ablate:main", "train and score the rows of an ablation, over several seeds"),
    "reproduce": ("cores.cli.reproduce:main", "the paper's tables: what each row needs, its figures beside ours"),
    "predict": ("cores.cli.predict:main", "ask a model about pictures"),
    "chat": ("cores.cli.chat:main", "ask about a picture in the terminal, question after question"),
    "label": ("cores.cli.label:main", "label pictures by queries, as labelme files to correct and train on"),
    "serve": ("cores.cli.serve:main", "answer over HTTP, with a page for people"),
    "convert": ("cores.cli.convert:main", "make a model folder of a published checkpoint"),
    "export": ("cores.cli.export:main", "write a model in the published layout, for other programs"),
    "check": ("cores.cli.check:main", "say what a model folder is and whether it can be used"),
    "scenes": ("cores.cli.scenes:main", "write the synthetic world; train its base models"),
    "data": ("cores.cli.data:main", "check, show and dump data sets"),
    "prompt": ("cores.cli.prompt:main", "print the text and tokens of a question"),
    "recipes": ("cores.cli.recipes:main", "list, show, copy and check recipes"),
    "env": ("cores.cli.env:main", "print versions and devices, for bug reports"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; gives the exit code. What the user did wrong is one line on stderr, without a traceback.

    A verb's own `main` takes the arguments behind its name and raises CoresError; here that becomes line and code.
    Raises SystemExit where argparse does: 0 after --help, 2 for flags that it does not know.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started it
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0 if argv else 2
    if argv[0] == "--version":
        sys.stdout.write(f"cores {__version__}\n")
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"take one of {', '.join(VERBS)}"
        return _fail(f"there is no verb {verb}; {hint}", 2)
    module, _, function = VERBS[verb][0].partition(":")
    try:
        with escaped_output(), stoppable():
            return int(getattr(import_module(module), function)(rest))
    except CoresError as error:
        return _fail(str(error), 1 if isinstance(error, CheckFailed) else 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # whoever read our output has enough
        sys.stdout = None
        return 0
    except OSError as error:
        if error.errno in FULL:
            return _fail(f"the disk is full: {error.filename or error}; free some space and try again", 2)
        if error.filename is None:  # not about a file that somebody named
            raise
        return _fail(f"{error.filename}: cannot be read or written: {error.strerror}; take another place", 2)


def _help() -> str:
    verbs = "".join(f"  {verb:9} {line}\n" for verb, (_, line) in VERBS.items())
    return (
        "usage: cores VERB ...\n\nReasoning segmentation: ask for something in words, get its exact mask.\n\n"
        f"{verbs}\ncores VERB --help says more. cores --version prints the version.\n"
    )


def _fail(message: str, code: int) -> int:
    lines = message.split("\n  ")  # what is wrong with each of many tensors stays a list
    sys.stderr.write("\n  ".join(printable(line) for line in ["cores: " + lines[0], *lines[1:]]) + "\n")
    return code
