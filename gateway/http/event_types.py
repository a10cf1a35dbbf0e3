"""`/v1/event-types`: what is known of the data of each type, and whether publishers are held to it."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, get, put
from litestar.params import FromPath, RawBody
from pydantic import ConfigDict, Field

from gateway.errors import Conflict, Fault, InvalidInput, NotFound
from gateway.event_types import BUILT_IN, EventTypeRecord, JsonSchema, Validation
from gateway.http.answers import Answer, Time, answer
from gateway.http.auth import Caller, requires
from gateway.http.bodies import Body, parse, parse_query
from gateway.http.operations import Operation, Says, describes
from gateway.http.paging import Paged, PageOf, fingerprint, read_token, write_token
from gateway.http.services import Use
from gateway.intake import type_fault
from gateway.keys import Scope
from gateway.registry.schemas import compile_schema

SCHEMA_WORDS = (
    "A JSON Schema (2020-12) for `data`, of at most 64 KiB. `$ref` leads into the schema itself and never back to "
    "where it stands; `pattern` neither looks around nor back; `format` is not checked."
)


class EventTypeIn(Body):
    description: Annotated[str, Field(max_length=2_000, description="For people: what has happened.")] = ""
    schema_: Annotated[
        dict[str, Any] | bool | None,
        Field(alias="schema", description=f"{SCHEMA_WORDS} Left out: the one that is built in, if there is one."),
    ] = Field(default_factory=lambda: None)
    validation: Annotated[
        str,
        Field(
            json_schema_extra={"enum": [str(each) for each in Validation]},
            description="`off`: nothing is checked. `warn`: what does not fit is accepted, counted and logged. "
            "`enforce`: it is refused.",
        ),
    ] = "off"


class EventTypeOut(Answer):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    type: str
    description: str
    schema_: Annotated[
        dict[str, Any] | bool | None,
        Field(alias="schema", description="A JSON Schema (2020-12) for `data`; null: there is none."),
    ]
    validation: str
    built_in: bool
    updated_at: Annotated[Time | None, Field(description="null: nobody has changed what is built in.")]


class EventTypeController(Controller):
    path = "/v1/event-types"
    tags = ("Event types",)

    @get(
        "/",
        guards=[requires(Scope.STREAM)],
        opt=describes(
            Operation(
                summary="List event types",
                description="Those that were set, newest first, then the built-in ones. Any other name is welcome too.",
                query=Paged,
                answers={200: Says(description="A page of them.", content=PageOf[EventTypeOut])},
            )
        ),
    )
    async def listing(self, request: Request[Any, Caller, Any], services: Use) -> Response[bytes]:
        query = parse_query(Paged, request.query_params.multi_items())
        mark = fingerprint("event-types", query)
        before = read_token(mark, query.page_token, str)
        page = await services.event_types.list(limit=query.page_size, before=before)
        rows = [_out(record) for record in page.rows]
        return answer(PageOf[EventTypeOut](data=rows, next_page_token=write_token(mark, page.more)))

    @put(
        "/{type_name:str}",
        guards=[requires(Scope.ADMIN)],
        opt=describes(
            Operation(
                summary="Set one",
                description="All of it: what is left out goes back to its default. Who publishes meets it from the "
                "answer on, and in other processes within a second or so.",
                body=EventTypeIn,
                body_examples={
                    "enforced": {
                        "description": "An order was paid.",
                        "schema": {
                            "type": "object",
                            "required": ["amount"],
                            "properties": {"amount": {"type": "integer", "minimum": 0}},
                        },
                        "validation": "enforce",
                    }
                },
                answers={200: Says(description="The type as it is now.", content=EventTypeOut)},
                problems=(NotFound, Conflict),
            )
        ),
    )
    async def set(self, body: RawBody, type_name: FromPath[str], services: Use) -> Response[bytes]:
        if (fault := type_fault(type_name)) is not None:
            if type_name.startswith("gateway"):
                raise InvalidInput.at("/type", fault)
            raise NotFound(f"there can be no such event type: it {fault}")
        wanted = parse(EventTypeIn, body)
        built_in = BUILT_IN.get(type_name)
        schema = wanted.schema_ if "schema_" in wanted.model_fields_set or built_in is None else built_in.schema
        record = EventTypeRecord(
            type=type_name,
            description=wanted.description or (built_in.description if built_in else ""),
            schema=schema,
            validation=_validation(wanted.validation, schema),
        )
        stored = await services.event_types.put(record)
        services.check_by(stored)
        return answer(_out(stored))


def _validation(name: str, schema: JsonSchema | None) -> Validation:
    """Raises:
    InvalidInput: it is none, or *schema* is not one that data can be held to.
    """
    if name not in list(Validation):
        raise InvalidInput.at("/validation", f"has to be one of {', '.join(Validation)}")
    validation = Validation(name)
    if schema is not None:
        try:
            compile_schema(schema)
        except InvalidInput as error:
            faults = [Fault(f"/schema{fault.pointer}", fault.detail) for fault in error.faults]
            raise InvalidInput(f"{faults[0].pointer} {faults[0].detail}", faults) from None
    elif validation is not Validation.OFF:
        raise InvalidInput.at("/schema", "is needed: there is nothing that data could be held to")
    return validation


def _out(record: EventTypeRecord) -> EventTypeOut:
    return EventTypeOut(
        type=record.type,
        description=record.description,
        schema_=record.schema,
        validation=record.validation,
        built_in=record.type in BUILT_IN,
        updated_at=record.updated_at,
    )
