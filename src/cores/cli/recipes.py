"""`cores recipes ls | show | cp | check`: the settings that come with cores, and one's own."""

import argparse
import sys
from pathlib import Path

from cores.errors import UserError
from cores.recipe import load_recipe
from cores.recipe_files import recipe_names, recipe_text


def main(argv: list[str]) -> int:
    """Run `cores recipes`. Gives the exit code.

    Raises RecipeError for a recipe that cannot be used, UserError for a file that is there or has no folder.
    """
    parser = argparse.ArgumentParser(prog="cores recipes", description="Settings of training runs.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("ls", help="the recipes that come with cores")
    show = verbs.add_parser("show", help="print all settings, with those that a recipe takes from another")
    show.add_argument("recipe", help="a name from `ls` or a file")
    show.add_argument("settings", nargs="*", metavar="section.key=value", help="settings to put over it")
    copy = verbs.add_parser("cp", help="copy a recipe to a file of your own")
    copy.add_argument("recipe", help="a name from `ls`")
    copy.add_argument("file", type=Path)
    copy.add_argument("--overwrite", action="store_true")
    check = verbs.add_parser("check", help="check files; exit code 2 when one cannot be used")
    check.add_argument("recipes", nargs="+", metavar="recipe")
    args = parser.parse_args(argv)
    if args.verb == "ls":
        _list()
    elif args.verb == "show":
        sys.stdout.write(load_recipe(args.recipe, args.settings).to_yaml())
    elif args.verb == "cp":
        _copy(args.recipe, args.file, args.overwrite)
    else:
        for name in args.recipes:
            load_recipe(name)
            sys.stdout.write(f"{name}: good\n")
    return 0


def _list() -> None:
    """Every recipe with the command in its first line."""
    names = recipe_names()
    width = max(map(len, names))
    for name in names:
        command = recipe_text(name).splitlines()[0].lstrip("# ")
        sys.stdout.write(f"{name:{width}}  {command}\n")


def _copy(name: str, file: Path, overwrite: bool) -> None:
    text = recipe_text(name)
    if file.is_dir():
        file = file / f"{Path(name).stem}.yaml"
    if file.exists() and not overwrite:
        raise UserError(f"{file} exists already: take another name, or add --overwrite")
    try:
        file.write_text(text, encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: there is no folder {file.parent}: make it first") from None
    sys.stdout.write(f"{file}: edit it, then `cores train {file} --out RUN`\n")
