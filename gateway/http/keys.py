"""`/v1/keys`: make, list and revoke. For admins."""

from http import HTTPStatus
from typing import Annotated, Any, Self

from litestar import Controller, Request, Response, delete, get, post
from litestar.params import FromPath, RawBody
from pydantic import Field, model_validator

from gateway.errors import Fault, InvalidInput, NotFound
from gateway.filters import MAX_CHOICES, library_id_fault
from gateway.http.answers import Answer, Time, answer, nothing
from gateway.http.auth import Caller, requires
from gateway.http.bodies import Body, Unique, parse, parse_query
from gateway.http.ids import is_id, new_id
from gateway.http.operations import Operation, Says, describes
from gateway.http.paging import Paged, PageOf, fingerprint, read_token, write_token
from gateway.http.services import Use
from gateway.keys import Key, Scope, hash_secret, new_secret

SCOPE_NAMES = {"enum": [str(scope) for scope in Scope]}


class KeyIn(Body):
    name: Annotated[str, Field(min_length=1, max_length=200, description="For people: who uses it, for what.")]
    scopes: Annotated[
        list[Annotated[str, Field(json_schema_extra=SCOPE_NAMES)]],
        Field(min_length=1, max_length=len(Scope)),
        Unique,
    ]
    library_ids: Annotated[
        list[str] | None,
        Field(description="What the key is confined to; null: nothing. An admin key is never confined."),
    ] = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if faults := list(self._faults()):
            raise InvalidInput(f"{faults[0].pointer} {faults[0].detail}", faults)
        return self

    def _faults(self) -> "list[Fault]":
        known = SCOPE_NAMES["enum"]
        faults = [
            Fault(f"/scopes/{index}", f"has to be one of {', '.join(known)}")
            for index, scope in enumerate(self.scopes)
            if scope not in known
        ]
        if self.library_ids is None:
            return faults
        if not 1 <= len(self.library_ids) <= MAX_CHOICES:
            faults.append(Fault("/library_ids", f"has to name 1 to {MAX_CHOICES} libraries, or be null"))
        elif Scope.ADMIN in self.scopes:
            faults.append(Fault("/library_ids", "cannot confine a key with the scope admin"))
        found = ((index, library_id_fault(library_id)) for index, library_id in enumerate(self.library_ids))
        return faults + [Fault(f"/library_ids/{index}", fault) for index, fault in found if fault is not None]


class KeyOut(Answer):
    id: str
    name: str
    scopes: list[str]
    library_ids: list[str] | None
    created_at: Time


class KeyMade(KeyOut):
    key: Annotated[str, Field(description="The key itself, shown this once.")]


class KeyController(Controller):
    path = "/v1/keys"
    tags = ("Keys",)
    guards = (requires(Scope.ADMIN),)

    @post(
        "/",
        opt=describes(
            Operation(
                summary="Make a key",
                body=KeyIn,
                body_examples={
                    "publisher": {"name": "the importer", "scopes": ["publish"]},
                    "confined": {"name": "acme's page", "scopes": ["stream"], "library_ids": ["acme"]},
                },
                answers={201: Says(description="The key, shown this once.", content=KeyMade)},
            )
        ),
    )
    async def create(self, body: RawBody, services: Use) -> Response[bytes]:
        wanted = parse(KeyIn, body)
        secret = new_secret()
        key = Key(
            id=new_id("key"),
            name=wanted.name,
            scopes=frozenset(Scope(scope) for scope in wanted.scopes),
            libraries=None if wanted.library_ids is None else frozenset(wanted.library_ids),
            created_at=services.clock(),
            hash=hash_secret(secret),
        )
        await services.keys.add(key)
        return answer(KeyMade(**_fields(key), key=secret), HTTPStatus.CREATED)

    @get(
        "/",
        opt=describes(
            Operation(
                summary="List keys",
                query=Paged,
                answers={200: Says(description="A page of them, newest first.", content=PageOf[KeyOut])},
            )
        ),
    )
    async def listing(self, request: Request[Any, Caller, Any], services: Use) -> Response[bytes]:
        query = parse_query(Paged, request.query_params.multi_items())
        mark = fingerprint("keys", query)
        page = await services.keys.list(limit=query.page_size, before=read_token(mark, query.page_token, str))
        rows = [KeyOut(**_fields(key)) for key in page.rows]
        return answer(PageOf[KeyOut](data=rows, next_page_token=write_token(mark, page.more)))

    @delete(
        "/{key_id:str}",
        opt=describes(
            Operation(
                summary="Revoke a key",
                description="At once: streams that came from it end. What it has made goes on.",
                answers={204: Says(description="It is no more.")},
                problems=(NotFound,),
            )
        ),
    )
    async def revoke(self, key_id: FromPath[str], services: Use) -> Response[None]:
        if not is_id(key_id) or not await services.keys.revoke(key_id):
            raise NotFound("there is no such key")
        services.keyring.forget(key_id)
        return nothing()


def _fields(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "library_ids": None if key.libraries is None else sorted(key.libraries),
        "created_at": key.created_at,
    }
