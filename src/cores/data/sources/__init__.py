"""Sources by name: `NAME[|splitBy][|split]`, and one's own data as `FORMAT:PATH`. A reader is imported when used."""

from importlib import import_module
from pathlib import Path

from cores.data.sources.base import FileSource, Source, file_errors
from cores.errors import DataError
from cores.typed_yaml import nearest

# NAME -> who opens it: called with what stands between the bars after the name, the data directory, the whole name.
NAMED = {
    "ade20k": "cores.data.sources.label_maps:open_label_maps",
    "cocostuff": "cores.data.sources.label_maps:open_label_maps",
    "mapillary": "cores.data.sources.label_maps:open_label_maps",
    "paco_lvis": "cores.data.sources.parts:open_parts",
    "pascal_part": "cores.data.sources.parts:open_parts",
    "part_imagenet": "cores.data.sources.parts:open_parts",
    "seg_part": "cores.data.sources.parts:open_seg_part",
    "refcoco": "cores.data.sources.refer:open_refer",
    "refcoco+": "cores.data.sources.refer:open_refer",
    "refcocog": "cores.data.sources.refer:open_refer",
    "refclef": "cores.data.sources.refer:open_refer",
    "grefcoco": "cores.data.sources.refer:open_refer",
    "llava_instruct_150k": "cores.data.sources.llava_instruct:open_llava",
    "ReasonSeg": "cores.data.sources.reasonseg:open_reasonseg",
}
# FORMAT -> who opens it: called with the path, the data directory, the whole name.
OWN = {
    "manifest": "cores.data.sources.manifest:open_manifest",
    "coco": "cores.data.sources.coco:open_coco",
    "hf": "cores.data.sources.hugging_face:open_hugging_face",
    "labelme": "cores.data.sources.labelme:open_labelme",
}
SCENES = "cores.scenes.source:open_scenes"


def open_source(name: str, data_dir: Path | None = None, *, evaluation: bool = False) -> Source:
    """A source by its name, such as `ReasonSeg|val`, `refcoco|unc|testA`, `scenes|test` or `manifest:PATH`.

    Args: `data_dir`: the data directory; scenes need none. `evaluation`: ask as the published programs validate (a
    ReasonSeg image its first text only) instead of everything.
    Raises DataError for a name that nobody knows, and for files that are not there or cannot be used.
    """
    head, *splits = name.split("|")
    if head == "scenes":
        if len(splits) > 2:
            raise DataError(f"{name}: expected scenes|SPLIT or scenes|SPLIT|KINDS")
        opened: Source = _function(SCENES)(*splits[:1], **({"kinds": splits[1]} if len(splits) > 1 else {}))
        return opened
    kind, colon, path = name.partition(":")
    if colon and kind in OWN:
        if not path:
            raise DataError(f"{name}: which file or folder? Say {kind}:PATH")
        with file_errors(name):
            source = _function(OWN[kind])(path, data_dir, name)
    elif head in NAMED:
        with file_errors(name):
            source = _function(NAMED[head])(splits, data_dir, name)
    else:
        known = [*NAMED, "scenes", *(f"{format}:PATH" for format in OWN)]
        raise DataError(f"{name}: there is no such source{nearest(head, known) or f'; take one of {known}'}")
    assert isinstance(source, FileSource)
    return source.for_evaluation() if evaluation else source


def _function(place: str):  # type: ignore[no-untyped-def]
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


__all__ = ["FileSource", "Source", "open_source"]
