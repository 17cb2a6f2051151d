"""The OpenAPI document as a page to read: no scripts, and nothing that would have to be fetched from elsewhere."""

from html import escape
from typing import Any

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h2{margin-top:2.5rem;border-top:1px solid #d5dae1;padding-top:1.5rem}h2 code{font-size:1.05em}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;
border-bottom:1px solid #e8ebef}pre{background:#f4f6f8;padding:.8rem;overflow-x:auto}
@media (prefers-color-scheme:dark){body{color:#e4e7eb;background:#14171b}pre{background:#20252b}
td,th,h2{border-color:#30363d}a{color:#8ab4ff}}
"""
EXAMPLES = {
    "/v1/segment": "curl -F image=@photo.jpg -F query='the handle of the cup' {server}/v1/segment",
    "/v1/chat": "curl -N -F image=@photo.jpg -F query='what can I drink from?' {server}/v1/chat",
    "/readyz": "curl {server}/readyz",
}


def reference(document: dict[str, Any], server: str) -> str:
    """HTML of all paths of an OpenAPI document: what they take and what they answer. `server`: its address."""
    title, about = (escape(document["info"][name]) for name in ("title", "description"))
    found = [
        _operation(path, method, told, server)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]
    schemas = document.get("components", {}).get("schemas", {})
    shown = [f'<h2 id="{escape(name)}">{escape(name)}</h2>{_fields(schema)}' for name, schema in schemas.items()]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{about}</p>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a>.</p>{"".join(found + shown)}</html>'
    )


def _operation(path: str, method: str, told: dict[str, Any], server: str) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(told.get('summary', ''))}</p>"]
    if path in EXAMPLES:
        parts.append(f"<pre>{escape(EXAMPLES[path].format(server=server))}</pre>")
    for kind, content in told.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h3>{escape(kind)}</h3>{_fields(content['schema'])}")
    rows = []
    for status, answer in told["responses"].items():
        schemas = [content.get("schema", {}) for content in answer.get("content", {}).values()]
        names = {schema["$ref"].rpartition("/")[2] for schema in schemas if "$ref" in schema}
        linked = ", ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in sorted(names))
        rows.append(f"<tr><td><code>{escape(status)}</code><td>{_text(answer['description'])}<td>{linked}")
    return f"{''.join(parts)}<h3>Answers</h3><table>{''.join(rows)}</table>"


def _fields(schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    rows = [
        f"<tr><td><code>{escape(name)}</code>{' *' if name in needed else ''}<td><code>{escape(_type(field))}</code>"
        f"<td>{_text(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<table>{''.join(rows)}</table><p>* needed</p>"


def _type(field: dict[str, Any]) -> str:
    """A field's type in a word or two."""
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    if field.get("type") == "array" and "items" in field:
        return f"list of {_type(field['items'])}"
    return str(field.get("format", field.get("type", "any")))


def _text(words: str) -> str:
    """Escaped, with what stands between backquotes as code."""
    parts = [escape(part) for part in words.split("`")]
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
