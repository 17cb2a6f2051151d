"""How many images the published data sets have: a figure on fewer of them is another figure."""

from cores.data.sources.base import Source

# Images; of llava_instruct_150k, conversations. From the papers and pages of the data sets.
PUBLISHED = {
    "ReasonSeg|train": 239,
    "ReasonSeg|val": 200,
    "ReasonSeg|test": 779,
    "ReasonSeg|train_val": 439,
    "ade20k": 20_210,
    "cocostuff": 118_287,
    "mapillary": 18_000,
    "paco_lvis|train": 45_790,
    "paco_lvis|val": 2_410,
    "refcoco|unc|train": 16_994,
    "refcoco|unc|val": 1_500,
    "refcoco|unc|testA": 750,
    "refcoco|unc|testB": 750,
    "refcoco+|unc|train": 16_992,
    "refcoco+|unc|val": 1_500,
    "refcoco+|unc|testA": 750,
    "refcoco+|unc|testB": 750,
    "refcocog|umd|train": 21_899,
    "refcocog|umd|val": 1_300,
    "refcocog|umd|test": 2_600,
    "refcocog|google|train": 24_698,
    "refcocog|google|val": 4_650,
    "llava_instruct_150k": 157_712,
}
SPLIT_BY = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}


def published_count(name: str) -> int | None:
    """How many images the source of this name has as published; None when that is not known."""
    head, *rest = name.split("|")
    if head in SPLIT_BY and len(rest) == 1:
        rest = [SPLIT_BY[head], *rest]
    if rest == ["train"] and head in PUBLISHED:
        rest = []
    return PUBLISHED.get("|".join([head, *rest]))


def count_note(source: Source) -> str | None:
    """What a report must say about a source that has another number of images than was published; None when all is
    well or nothing is known."""
    known = published_count(source.name)
    if known is None or known == len(source):
        return None
    return f"{source.name} has {len(source):,} images here, {known:,} as published: figures cannot be compared"
