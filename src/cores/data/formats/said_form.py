"""The field `form` of a line or row that asks something: how its query is put into words."""

from typing import Any, cast, get_args

from cores.data.formats.json_files import maybe, short
from cores.data.sample import Form
from cores.errors import DataError


def said_form(entry: dict[str, Any], where: str) -> Form | None:
    """What `form` says; None where it is missing or null. Raises DataError for what is no form."""
    form = maybe(entry, "form", str, where)
    if form is not None and form not in get_args(Form):
        raise DataError(f"{where}: form: found {short(form)}, expected {', '.join(get_args(Form))}")
    return cast(Form | None, form)
