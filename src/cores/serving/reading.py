"""A request's body, JSON or a form, as what is asked. A file's name is read as a name, never as a path."""

import base64
import binascii
import json
import re
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from cores.inference.options import Options
from cores.serving.refusals import Refusal
from cores.serving.schemas import Asking, ChatAsking, SegmentAsking

A = TypeVar("A", SegmentAsking, ChatAsking)
DATA_URL = re.compile(r"data:[\w.+/-]*;base64,")
NO_NAME = re.compile(r"[^\w .()+-]")  # whatever could be a path, an address or markup
OPTIONS = [one.name for one in fields(Options) if one.name in Asking.model_fields]
# what JSON has as numbers and as true or false:
PLAIN = ("explain", "max_new_tokens", "threshold", "fill_holes", "refine", "max_seconds")
FIELD = 64 * 1024  # bytes of a form's field; a longer query is refused by its characters
FIELDS = 64


class Asked(NamedTuple):
    """What came. `image`: a file's bytes; `name`: its name, harmless; `queries` and `options` are for the engine."""

    image: bytes
    name: str
    queries: list[str]
    options: Options
    formats: list[str]


async def read(request: Request, asking: type[A]) -> Asked:
    """Raises Refusal: 415 for another type of content, 422 for content that says nothing or something wrong."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        told = _checked(asking, await request.body())
        image, name = _decoded(told.image), told.name or "picture"
    elif kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=FIELDS, max_part_size=FIELD) as form:
            file = form.get("image")
            if not isinstance(file, UploadFile):
                raise Refusal(422, "image: expected the picture's file, with a file name")
            image, name = await file.read(), file.filename or "picture"
            said = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
        told = _checked(asking, _plain(asking, said))
    else:
        raise Refusal(415, "send application/json or multipart/form-data")
    options = Options(**{name: getattr(told, name) for name in OPTIONS})
    queries = told.queries if isinstance(told, SegmentAsking) else [told.query]
    return Asked(image, _harmless(name), queries, options, list(told.formats))


def _plain(asking: type[A], said: list[tuple[str, str]]) -> dict[str, Any]:
    """A form's fields as JSON has them: lists where several are meant, numbers as numbers. The image stands apart."""
    many = {"query": "queries", "queries": "queries", "formats": "formats"}
    if asking is ChatAsking:
        many = {"formats": "formats"}
    found: dict[str, Any] = {"image": "file"}
    for name, value in said:
        if name in many:
            found.setdefault(many[name], []).append(value)
        elif name in found:
            raise Refusal(422, f"{name[:40]}: is given twice")
        else:
            found[name] = _meant(value) if name in PLAIN else value
    return found


def _meant(value: str) -> Any:
    """A number, true or false, as JSON writes them; anything else as it stands."""
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if isinstance(found, (bool, int, float)) else value


def _checked(asking: type[A], given: bytes | dict[str, Any]) -> A:
    try:
        return asking.model_validate_json(given) if isinstance(given, bytes) else asking.model_validate(given)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        said = (
            f"{'.'.join(str(step)[:40] for step in one['loc'][:3]) or 'body'}: {one['msg'][:200]}" for one in wrong[:5]
        )
        raise Refusal(422, "; ".join(said)) from None


def _decoded(image: str) -> bytes:
    start = DATA_URL.match(image)
    try:
        return base64.b64decode(image[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, "image: is no base64") from None


def _harmless(name: str) -> str:
    """The last part of a file's name, in letters that mean nothing."""
    own = NO_NAME.sub("_", re.split(r"[/\\]", name)[-1]).strip(". ")
    return own[-100:] or "picture"
