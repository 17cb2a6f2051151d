"""What is asked and answered over HTTP, as JSON; the OpenAPI document is made of it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from cores.serving.settings import Settings

FormName = Literal["phrase", "sentence", "explain", "raw"]
FormatName = Literal["overlay", "png", "labelme"]
LETTER = r"[^\s\x00-\x1f\x85]"  # one has to be there: not every dialect counts the same codes as blanks
Query = Annotated[str, Field(pattern=LETTER, description='What to segment, in words: "the handle of the cup".')]


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 3.0 is 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Tokens = Annotated[int, Field(ge=1, le=4096), BeforeValidator(_whole)]


OTHER_FORMS: JsonDict = {  # than `explain`, which the option of that name does not go with
    "properties": {"explain": {"const": True}, "form": {"enum": ["phrase", "sentence", "raw"]}},
    "required": ["explain", "form"],
}


class Asking(BaseModel):
    """A picture, and how its questions are asked."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"not": OTHER_FORMS})

    image: str = Field(
        min_length=1,
        description="The picture's file (JPEG, PNG, WebP, TIFF, BMP or GIF) in base64, or as a `data:` URL.",
        json_schema_extra={"format": "byte"},
    )
    form: FormName | None = Field(
        None,
        description="How a query is put into words: `phrase`, a name; `sentence`, a whole question; `explain`, one "
        "that also wants the reason; `raw`, as it is. Left out: phrase or sentence, by the query's words.",
    )
    explain: bool = Field(
        False, description="The reason is wanted, too, whatever the query's words: a phrase becomes a question."
    )
    max_new_tokens: Tokens | None = Field(None, description="Most tokens of an answer.")
    chain: Literal["free", "constrained"] = Field(
        "free", description="`constrained`: every answer holds each level's token, and so a mask; said a token a pass."
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="A mask has the pixels that are more probable than this.")
    fill_holes: bool = Field(False, description="A mask has what it encloses, too.")
    refine: bool = Field(False, description="Masks are decoded once more, each with itself as its prompt.")
    max_seconds: float | None = Field(
        None,
        ge=0,
        description="An answer that is not finished so long after the request came is cut at its next token, and has "
        "the masks of what was said.",
    )
    formats: list[FormatName] = Field(
        default_factory=list,
        max_length=3,
        description="What an answer has besides run lengths: `overlay`, the picture with its masks drawn, a PNG in "
        "base64; `png`, each level's mask as a black and white PNG in base64; `labelme`, a file that labelme opens.",
    )
    name: str | None = Field(
        None, max_length=255, description="The picture's file name, for `labelme`. In multipart, that of the file."
    )


class SegmentAsking(Asking):
    """Any number of questions about one picture."""

    queries: list[Query] = Field(min_length=1, description="Each is answered by itself, in this order.")


class ChatAsking(Asking):
    """One question about one picture, whose answer is sent while it is made."""

    query: Query


class Mask(BaseModel):
    """Compressed COCO run lengths."""

    size: tuple[int, int] = Field(description="Height and width in pixels.")
    counts: str


class Level(BaseModel):
    """One step of the chain: location, part or target."""

    name: str
    score: float | None
    mask: Mask
    png: str | None = None


class Target(BaseModel):
    """One thing that was found; its mask is the last level's."""

    phrase: str
    span: tuple[int, int] | None = Field(
        None, description="Where the phrase stands in `text`, if the answer names it."
    )
    confidence: float | None = Field(
        description="The IoU that is to be expected of the mask, where the model has a fit."
    )
    score: float | None = Field(description="The mean probability of the mask's pixels.")
    box: tuple[int, int, int, int] | None = Field(description="Left, top, right, bottom in pixels.")
    mask: Mask
    levels: list[Level]


class Result(BaseModel):
    """The answer to one query."""

    query: str = Field(description="As the model read it: the tokens that prompts are built with are taken apart.")
    answer: str
    text: str = Field(description="The answer without grounding tokens.")
    status: Literal["segmented", "absent", "text"]
    score: float | None = Field(description="The mean log probability of the answer's tokens.")
    refusal: float | None = Field(description="The probability that nothing there is what was asked for.")
    cut: bool
    size: tuple[int, int] = Field(description="Height and width of the picture in pixels.")
    mask: Mask = Field(description="All targets together.")
    targets: list[Target]
    overlay: str | None = None
    labelme: dict[str, Any] | None = None


class Segmented(BaseModel):
    """The answers, in the order of the queries."""

    results: list[Result]


class Failure(BaseModel):
    """Why there is no answer, in one sentence."""

    error: str


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "starting", "draining"]


def request_body(asking: type[SegmentAsking] | type[ChatAsking], settings: Settings) -> dict[str, Any]:
    """The two ways to ask, JSON and a form, for OpenAPI: with this server's own limits."""
    schema = asking.model_json_schema()
    own: dict[str, Any] = schema["properties"]
    texts = own["queries"]["items"] if "queries" in own else own["query"]
    texts["maxLength"] = settings.max_query
    form = {name: _said(value) for name, value in own.items() if name not in ("queries", "name")}
    form["image"] = {"type": "string", "format": "binary", "description": "The picture's file."}
    form["query"] = own["queries"] if "queries" in own else own["query"]
    if "queries" in own:
        own["queries"]["maxItems"] = settings.max_queries
    as_form = {**schema, "properties": form, "required": ["image", "query"], "title": f"{asking.__name__}Form"}
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": as_form}}
    return {"requestBody": {"required": True, "content": content}}


def _said(field: dict[str, Any]) -> dict[str, Any]:
    """A field as a form has it: there, or not; there is no null."""
    (kind,) = [one for one in field.get("anyOf", [{}]) if one.get("type") != "null"]
    return {name: value for name, value in {**field, **kind}.items() if name not in ("anyOf", "default")}
