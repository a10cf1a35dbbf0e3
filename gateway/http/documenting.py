"""The contract as OpenAPI 3.1, written from what each route says about itself (`operations.Operation`)."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from pydantic import BaseModel, TypeAdapter

from gateway.errors import Forbidden, GatewayError, InvalidInput, MalformedInput, TooLarge, Unauthenticated
from gateway.http import problems
from gateway.http.auth import PUBLIC, TAKES_TOKEN, Requires
from gateway.http.operations import OPERATION, Operation, Says
from gateway.http.receivers import webhooks
from gateway.version import __version__

Json = dict[str, Any]

REF = "#/components/schemas/{model}"
KEY, TOKEN = "key", "stream_token"

DESCRIPTION = """\
Publish events, read them back, stream them, and have them sent to receivers as signed webhooks.

Times are RFC 3339 in UTC. Every error is `application/problem+json` (RFC 9457); bad input names each wrong place with
a JSON pointer. Lists take `page_size` and `page_token`, newest first. Unknown fields in a body are refused.
"""


def document(app: Litestar) -> Json:
    """The document for every route of *app* that has an `Operation`."""
    schemas = Schemas()
    paths: dict[str, Json] = {}
    for path, method, handler in routes(app):
        operation = handler.opt.get(OPERATION)
        if operation is not None:
            paths.setdefault(path, {})[method] = _operation(path, method, handler, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Arrw Gateway",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{KEY: []}],
        "paths": {path: dict(sorted(paths[path].items())) for path in sorted(paths)},
        "webhooks": webhooks(schemas.of),
        "components": {
            "securitySchemes": {
                KEY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key with the scope that the operation needs; `admin` is good for all.",
                },
                TOKEN: {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "A stream token from `POST /v1/stream-tokens`. A key is never accepted here.",
                },
            },
            "responses": {kind.name: _problem(kind) for kind in (*problems.KINDS.values(), problems.INTERNAL)},
            "schemas": {**schemas.all(), "Problem": PROBLEM},
        },
    }


def routes(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """Path (as OpenAPI writes it), method in lower case, handler; Litestar's own answers to OPTIONS left out."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path_format)
            for method, (handler, _) in route.route_handler_map.items():
                if method != "OPTIONS":
                    yield path, method.lower(), handler


class Schemas:
    """Schemas of the models met so far, by name, each described once."""

    def __init__(self) -> None:
        self._definitions: Json = {}

    def of(self, content: Any, mode: str = "serialization") -> Json:  # noqa: ANN401 - anything pydantic can describe
        schema = TypeAdapter(content).json_schema(ref_template=REF, mode=mode)  # type: ignore[arg-type]
        self._definitions.update(schema.pop("$defs", {}))
        if (title := schema.get("title")) is not None and schema.get("type") == "object":
            name = re.sub(r"\W+", "_", title).strip("_")
            self._definitions[name] = schema
            return {"$ref": REF.format(model=name)}
        return schema

    def partial(self, content: type[BaseModel]) -> Json:
        """Every field of *content* optional, and null allowed: a merge patch."""
        schema = TypeAdapter(content).json_schema(ref_template=REF, mode="validation")
        schema.pop("required", None)
        name = content.__name__ + "Patch"
        schema["title"] = name
        schema["properties"] = {
            field: {"anyOf": [_without(inner, "default"), {"type": "null"}]}
            for field, inner in schema["properties"].items()
        }
        self._definitions[name] = schema
        return {"$ref": REF.format(model=name)}

    def all(self) -> Json:
        return {name: self._definitions[name] for name in sorted(self._definitions)}


PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457. `errors` is there for bad input.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "examples": ["/problems/invalid"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON pointer (RFC 6901) into what was sent."},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}


def _operation(path: str, method: str, handler: HTTPRouteHandler, operation: Operation, schemas: Schemas) -> Json:
    answers = {str(status): _answer(says, schemas) for status, says in operation.answers.items()}
    kinds = {problems.KINDS[error] for error in _refusals(handler, operation)} | {problems.INTERNAL}
    for kind in sorted(kinds, key=lambda kind: kind.status):
        answers.setdefault(str(kind.status), {"$ref": f"#/components/responses/{kind.name}"})
    described: Json = {
        "operationId": _operation_id(path, method),
        "tags": sorted(handler.resolve_tags()),
        "summary": operation.summary,
        "description": "\n\n".join(filter(None, [operation.description, _scopes(handler)])),
        "parameters": [*_path_parameters(path), *query_parameters(operation.query), *_header_parameters(operation)],
        "responses": dict(sorted(answers.items())),
        "security": _security(handler),
    }
    if operation.body is not None:
        described["requestBody"] = _body(operation, schemas)
    return {name: value for name, value in described.items() if value or name == "security"}


def _refusals(handler: HTTPRouteHandler, operation: Operation) -> Iterable[type[GatewayError]]:
    yield from operation.problems
    # A body that is not JSON, a Host that is none.
    yield MalformedInput
    if not handler.opt.get(PUBLIC):
        yield from (Unauthenticated, Forbidden)
    if operation.body is not None:
        yield from (InvalidInput, TooLarge)
    if operation.query is not None:
        yield InvalidInput


def _answer(says: Says, schemas: Schemas) -> Json:
    if says.content is None:
        return {"description": says.description}
    media: Json = {"schema": schemas.of(says.content)}
    if says.example is not None:
        media["example"] = says.example
    return {"description": says.description, "content": {says.media_type: media}}


def _problem(kind: problems.Kind) -> Json:
    example = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": "…"}
    answer: Json = {
        "description": kind.title,
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}, "example": example}},
    }
    if kind.status == HTTPStatus.UNAUTHORIZED:
        answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}}
    if kind.status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return answer


def _body(operation: Operation, schemas: Schemas) -> Json:
    schema = schemas.partial(operation.body) if operation.body_partial else schemas.of(operation.body, "validation")
    media: Json = {"schema": schema}
    if operation.body_examples:
        media["examples"] = {name: {"value": value} for name, value in operation.body_examples.items()}
    media_type = "application/merge-patch+json" if operation.body_partial else "application/json"
    return {"required": not operation.body_optional, "content": {media_type: media}}


def _path_parameters(path: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def query_parameters(query: type[BaseModel] | None) -> list[Json]:
    """The fields of *query*, as parameters."""
    if query is None:
        return []
    schema = query.model_json_schema()
    parameters = []
    for name, inner in schema["properties"].items():
        described = _without(_not_null(inner), "title", "default" if inner.get("default", 0) is None else "")
        parameter: Json = {"name": name, "in": "query", "required": name in schema.get("required", ())}
        if (text := described.pop("description", None)) is not None:
            parameter["description"] = text
        parameters.append({**parameter, "schema": described})
    return parameters


def _header_parameters(operation: Operation) -> list[Json]:
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in operation.headers.items()
    ]


def _security(handler: HTTPRouteHandler) -> list[Json]:
    if handler.opt.get(PUBLIC):
        return []
    return [{KEY: []}, {TOKEN: []}] if handler.opt.get(TAKES_TOKEN) else [{KEY: []}]


def _scopes(handler: HTTPRouteHandler) -> str:
    guards = [guard for guard in handler.resolve_guards() if isinstance(guard, Requires)]
    return "\n".join(
        f"Needs the scope {' or '.join(f'`{scope}`' for scope in guard.scopes)}"
        + (", of a key that is not confined to libraries." if guard.unconfined else ".")
        for guard in guards
    )


def _operation_id(path: str, method: str) -> str:
    """`get_v1_events_by_event_id`: from the contract alone, so that it stays when code moves."""
    return method + re.sub(r"\W+", "_", re.sub(r"\{(\w+)\}", r"by_\1", path)).rstrip("_")


def _not_null(schema: Json) -> Json:
    """A parameter that is there is not null: `T | None` is `T`."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    if len(kinds) != 1:
        return schema
    return {**_without(schema, "anyOf"), **kinds[0]}


def _without(schema: Mapping[str, Any], *names: str) -> Json:
    return {name: value for name, value in schema.items() if name not in names}


def text(app: Litestar) -> str:
    """The document as it is kept beside the code: the same for the same contract, byte for byte."""
    return json.dumps(document(app), indent=2, ensure_ascii=False) + "\n"
