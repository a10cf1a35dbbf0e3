"""`/openapi.json`, and `/docs`: the same for people, as one page of HTML that needs no script and no other server."""

import html
import json
from collections.abc import Iterator
from typing import Any

from litestar import Controller, MediaType, Request, Response, get

from gateway.http import documenting
from gateway.http.answers import raw
from gateway.http.auth import PUBLIC
from gateway.http.operations import Operation, Says, describes

Json = dict[str, Any]

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem; }
details { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .4rem; margin: .5rem 0; }
summary { cursor: pointer; padding: .5rem .75rem; }
details > div { padding: 0 .75rem .75rem; }
code, pre { font: .9em/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; background: color-mix(in srgb, currentColor 8%, transparent); }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; text-transform: uppercase; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; }
"""


class ManualController(Controller):
    tags = ("Operating",)

    @get(
        "/openapi.json",
        opt=describes(
            Operation(
                summary="The contract, in OpenAPI 3.1",
                answers={200: Says(description="It.", content=dict[str, Any])},
            ),
            **{PUBLIC: True},
        ),
    )
    async def contract(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        return raw(json.dumps(_document(request)).encode())

    @get(
        "/docs",
        opt=describes(
            Operation(
                summary="The contract, for people",
                answers={200: Says(description="It.", content=str, media_type="text/html")},
            ),
            **{PUBLIC: True},
        ),
    )
    async def page(self, request: Request[Any, Any, Any]) -> Response[str]:
        return Response(
            content="".join(_page(_document(request))),
            media_type=MediaType.HTML,
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )


def _document(request: Request[Any, Any, Any]) -> Json:
    """Written once, then kept with the app."""
    kept: Json | None = request.app.state.get("openapi")
    if kept is None:
        kept = documenting.document(request.app)
        request.app.state["openapi"] = kept
    return kept


def _page(document: Json) -> Iterator[str]:
    info = document["info"]
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(info["title"])}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    yield f"<h1>{_text(info['title'])} {_text(info['version'])}</h1>"
    yield _prose(info["description"])
    yield '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
    named = document["components"]["responses"]
    calls = [(method, path, each) for path, item in document["paths"].items() for method, each in item.items()]
    calls += [("post", "your URL", item["post"]) for item in document["webhooks"].values()]
    groups: dict[str, list[str]] = {}
    for method, path, operation in calls:
        groups.setdefault(operation["tags"][0], []).append("".join(_operation(method, path, operation, named)))
    for tag, operations in groups.items():
        yield f"<h2>{_text(tag)}</h2>{''.join(operations)}"
    yield "<h2>Shapes</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="{_text(name)}"><summary><code>{_text(name)}</code></summary>'
        yield f"<div>{_json(schema)}</div></details>"


def _operation(method: str, path: str, operation: Json, named: Json) -> Iterator[str]:
    yield f'<details><summary><span class="method">{method}</span> <code>{_text(path)}</code> '
    yield f"{_text(operation['summary'])}</summary><div>{_prose(operation.get('description', ''))}"
    if parameters := operation.get("parameters"):
        yield "<table><tr><th>Parameter<th>In<th>"
        for parameter in parameters:
            yield f"<tr><td><code>{_text(parameter['name'])}</code><td>{parameter['in']}"
            yield f"<td>{_text(parameter.get('description', ''))} {_kind(parameter['schema'])}"
        yield "</table>"
    for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h4>Body <code>{_text(media_type)}</code> {_kind(media['schema'])}</h4>"
        for example in (media.get("example"), *(each["value"] for each in media.get("examples", {}).values())):
            yield "" if example is None else _json(example)
    yield "<h4>Answers</h4><table>"
    for status, said in operation["responses"].items():
        answer = named[said["$ref"].rpartition("/")[2]] if "$ref" in said else said
        kinds = " ".join(_kind(media["schema"]) for media in answer.get("content", {}).values())
        yield f"<tr><td><code>{status}</code><td>{_text(answer['description'])}<td>{kinds}"
    yield "</table></div></details>"


def _kind(schema: Json) -> str:
    """The shape in a word, as a link where it has a name."""
    if (reference := schema.get("$ref")) is not None:
        name = _text(reference.rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    for joint in ("anyOf", "oneOf"):
        if joint in schema:
            return " or ".join(_kind(each) for each in schema[joint])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return f"<code>{_text(str(schema.get('format', schema.get('type', 'anything'))))}</code>"


def _prose(text: str) -> str:
    return "".join(f"<p>{_text(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _json(value: object) -> str:
    return f"<pre>{_text(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _text(text: str) -> str:
    return html.escape(text)
