"""Which files of a Hugging Face folder are which split of which configuration. Nothing is joined that is not named so.

Read are what `save_to_disk` writes, Parquet files as the head of a README.md or else their own names say
(`CONFIGURATION/SPLIT-00000-of-00002.parquet`, `data/SPLIT-...`, `CONFIGURATION/SPLIT/0000.parquet`), and folders of
pictures with a `metadata.jsonl`.
"""

import re
from pathlib import Path

import yaml

from cores.data.formats.json_files import check, decode, maybe, read_json, short, take
from cores.errors import DataError

Splits = dict[str, list[Path]]
ONLY = "default"  # what a configuration without a name is called
SHARD = re.compile(r"(?P<split>.+?)[-_.](?P<number>\d+)-of-(?P<count>\d+)\b.*")
NUMBERED = re.compile(r"(\d+|data|((part|shard|chunk)[-_]?\d+\b.*))$")  # files that are called by no split's name
USUAL = re.compile(r"(train|training|validation|valid|val|dev|eval|test|testing)([^a-z].*)?$")
METADATA = "metadata.jsonl"
HEAD = re.compile(r"---\s*\n(.*?)\n---\s*(\n|$)", re.DOTALL)  # of a README.md, in YAML


def find_splits(home: Path) -> dict[str, Splits]:
    """Files by configuration and split. Raises DataError when there are none, and when one of several is missing."""
    if home.is_file():
        return {ONLY: {_split_of(home): [home]}}
    if (home / "dataset_dict.json").is_file() or (home / "state.json").is_file():
        return {ONLY: _saved(home)}
    found = _declared(home) or _by_names(home) or _with_metadata(home) or _saved_below(home)
    if not found:
        what = f"Parquet files, what save_to_disk writes, or pictures with {METADATA}"
        raise DataError(f"{home}: holds nothing to read, expected {what}")
    for splits in found.values():
        for files in splits.values():
            _check_whole(files)
    return found


def _declared(home: Path) -> dict[str, Splits]:
    """The Parquet files that the head of a README.md says are which split of which configuration; none where it does
    not say. Raises DataError when it says it in another form."""
    readme = home / "README.md"
    if not readme.is_file():
        return {}
    head = HEAD.match(decode(readme.read_bytes(), readme))
    try:
        said = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{readme}: its head is no YAML: {' '.join(str(error).split())[:200]}") from None
    found: dict[str, Splits] = {}
    for one in (maybe(said, "configs", list, readme) if isinstance(said, dict) else None) or []:
        name = maybe(check(one, dict, f"{readme}: configs"), "config_name", str, readme) or ONLY
        files = one.get("data_files")
        if isinstance(files, dict):
            files = [{"split": split, "path": path} for split, path in files.items()]
        elif isinstance(files, str):
            files = [{"split": "train", "path": files}]
        for entry in check(files or [], list, f"{readme}: data_files of {name}"):
            entry = {"split": "train", "path": entry} if isinstance(entry, str) else entry
            split, paths = take(entry, "split", str, readme), entry.get("path")
            for pattern in check([paths] if isinstance(paths, str) else paths, list, f"{readme}: path of {split}"):
                tables = sorted(home.glob(_inside(pattern, readme)))
                kept = found.setdefault(name, {}).setdefault(split, [])
                kept += [path for path in tables if path.suffix == ".parquet" and path not in kept]
    there = {name: {split: files for split, files in splits.items() if files} for name, splits in found.items()}
    return {name: splits for name, splits in there.items() if splits}


def _inside(pattern: str, readme: Path) -> str:
    """A pattern of files below a folder. Raises DataError for one that leads out of it."""
    if not check(pattern, str, f"{readme}: path").strip("/.") or pattern.startswith("/") or ".." in pattern:
        raise DataError(f"{readme}: path: found {short(pattern)}, expected files below {readme.parent}")
    return pattern


def choose(found: dict[str, Splits], asked: list[str], path: str) -> tuple[str, list[Path]]:
    """The split and files of `|SPLIT` or `|CONFIGURATION|SPLIT`, which may be left out where there is but one.

    Raises DataError that says what there is.
    """
    if len(found) > 1:
        if not asked or asked[0] not in found:
            example = f"hf:{path}|{next(iter(found))}"
            raise DataError(f"hf:{path}: which configuration? There are {', '.join(found)}: say {example}|SPLIT")
        path, (configuration, *asked) = f"{path}|{asked[0]}", asked
    else:
        (configuration,) = found
        if len(asked) == 2 and asked[0] == configuration:
            asked = asked[1:]
    splits = found[configuration]
    if len(asked) > 1 or (asked and asked[0] not in splits) or (not asked and len(splits) > 1):
        raise DataError(f"hf:{path}: which split? There are {', '.join(splits)}: say hf:{path}|{next(iter(splits))}")
    split = asked[0] if asked else next(iter(splits))
    return split, splits[split]


def _by_names(home: Path) -> dict[str, Splits]:
    """Parquet files in any depth, by what they and their folders are called."""
    found: dict[str, Splits] = {}
    for path in sorted(home.rglob("*.parquet")):
        if not any(part.startswith(".") for part in _below(path, home)):
            configuration, split = _place(path, home)
            found.setdefault(configuration, {}).setdefault(split, []).append(path)
    return found


def _with_metadata(home: Path) -> dict[str, Splits]:
    """Folders of pictures, each a split."""
    found: dict[str, Splits] = {}
    for path in sorted(home.rglob(METADATA)):
        *folders, split = _below(path.parent, home) or [home.name]
        found.setdefault("/".join(folders) or ONLY, {})[split] = [path]
    return found


def _place(path: Path, home: Path) -> tuple[str, str]:
    """Configuration and split of a Parquet file, by its name and its folders."""
    folders = [name for name in _below(path.parent, home) if name != "data"]
    shard, split = SHARD.fullmatch(path.stem), _split_of(path)
    nameless = bool(NUMBERED.match(split))
    by_folder = not shard and not USUAL.match(split) and folders and USUAL.match(folders[-1])
    if nameless or by_folder:
        split = folders.pop() if folders else home.name
    elif folders and folders[-1] == split:
        folders.pop()
    return "/".join(folders) or ONLY, split


def _below(path: Path, home: Path) -> list[str]:
    return list(path.relative_to(home).parts)


def _split_of(path: Path) -> str:
    shard = SHARD.fullmatch(path.stem)
    return shard["split"] if shard else path.stem


def _check_whole(files: list[Path]) -> None:
    """Of files that are numbered `00001-of-00003` all have to be there, each once."""
    shards = [found for path in files if (found := SHARD.fullmatch(path.stem))]
    counts = {int(shard["count"]) for shard in shards}
    numbers = sorted(int(shard["number"]) for shard in shards)
    if shards and (len(counts) != 1 or numbers != list(range(len(numbers))) or {len(files)} != counts):
        said = " or ".join(map(str, sorted(counts)))
        raise DataError(f"{files[0]}: found {len(files)} files of this split, expected {said}: download it again")


def _saved(home: Path) -> Splits:
    """The splits that `save_to_disk` has noted in a folder."""
    if (home / "dataset_dict.json").is_file():
        names = take(read_json(home / "dataset_dict.json"), "splits", list, home / "dataset_dict.json")
        return {
            check(name, str, f"{home / 'dataset_dict.json'}: splits"): _saved_files(home / str(name)) for name in names
        }
    return {home.name: _saved_files(home)}


def _saved_below(home: Path) -> dict[str, Splits]:
    """Folders of several saved data sets are its configurations, those of several saved splits its splits."""
    splits = {path.parent.name: _saved_files(path.parent) for path in sorted(home.glob("*/state.json"))}
    sets = {path.parent.name: _saved(path.parent) for path in sorted(home.glob("*/dataset_dict.json"))}
    return ({ONLY: splits} if splits else {}) | sets


def _saved_files(home: Path) -> list[Path]:
    state = home / "state.json"
    parts = take(read_json(state), "_data_files", list, state)
    return [home / take(part, "filename", str, state) for part in parts]
