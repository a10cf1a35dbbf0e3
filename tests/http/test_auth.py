"""Who may do what: keys, scopes, stream tokens."""

from datetime import timedelta

import httpx
import jwt
import pytest
from litestar import Request, Response, get
from litestar.datastructures import State

from gateway.errors import Unauthenticated
from gateway.events import Cursor, EventType, LoggedEvent, Page
from gateway.http.auth import TAKES_TOKEN, Caller, requires
from gateway.http.keyring import KeyRing
from gateway.http.routes import create_http
from gateway.keys import Key, Scope
from tests.http.conftest import START, Api
from tests.http.doubles import Keys

ROUTES = [
    ("GET", "/v1/events", Scope.STREAM),
    ("POST", "/v1/events", Scope.PUBLISH),
    ("GET", "/v1/events/stats", Scope.STREAM),
    ("POST", "/v1/stream-tokens", Scope.STREAM),
    ("GET", "/v1/subscriptions", Scope.SUBSCRIPTIONS),
    ("POST", "/v1/subscriptions", Scope.SUBSCRIPTIONS),
    ("PATCH", "/v1/subscriptions/sub_1", Scope.SUBSCRIPTIONS),
    ("POST", "/v1/subscriptions/sub_1/test", Scope.SUBSCRIPTIONS),
    ("GET", "/v1/deliveries", Scope.SUBSCRIPTIONS),
    ("GET", "/v1/dead-letters", Scope.SUBSCRIPTIONS),
    ("POST", "/v1/dead-letters/redeliver", Scope.SUBSCRIPTIONS),
    ("GET", "/v1/replays/rpl_1", Scope.SUBSCRIPTIONS),
    ("GET", "/v1/keys", Scope.ADMIN),
    ("POST", "/v1/keys", Scope.ADMIN),
    ("DELETE", "/v1/keys/key_1", Scope.ADMIN),
]


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_every_route_needs_a_key_with_its_scope(api: Api, method: str, path: str, scope: Scope) -> None:
    nobody = await api.client()
    others = await api.client(*(set(Scope) - {scope, Scope.ADMIN}))
    holder = await api.client(scope)

    unknown = await nobody.request(method, path)
    forbidden = await others.request(method, path)

    assert unknown.status_code == 401
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert unknown.json()["type"] == "/problems/unauthenticated"
    assert forbidden.status_code == 403
    assert forbidden.json()["type"] == "/problems/forbidden"
    assert (await holder.request(method, path)).status_code not in {401, 403}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/openapi.json", "/docs"])
async def test_some_paths_answer_without_a_key(api: Api, path: str) -> None:
    assert (await (await api.client()).get(path)).status_code == 200


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer ", "bearer wrong", "wrong", "Bearer \u00ff"])
async def test_anything_but_a_known_key_is_a_401(api: Api, header: str) -> None:
    answer = await (await api.client()).get("/v1/events", headers={b"authorization": header.encode("latin-1")})

    assert answer.status_code == 401


@pytest.mark.parametrize(("scheme", "status"), [("Bearer", 200), ("bearer", 200), ("Basic", 401), ("", 401)])
async def test_a_good_key_counts_with_the_scheme_bearer_only(api: Api, scheme: str, status: int) -> None:
    header = f"{scheme} {await api.key(Scope.STREAM)}".lstrip()

    answer = await (await api.client()).get("/v1/events", headers={"authorization": header})

    assert answer.status_code == status


async def test_a_key_is_never_accepted_in_a_url(api: Api) -> None:
    secret = await api.key(Scope.ADMIN)
    nobody = await api.client()

    for name in ("token", "key", "api_key", "access_token"):
        assert (await nobody.get("/v1/events", params={name: secret})).status_code == 401


async def test_a_key_is_looked_up_once_and_forgotten_when_it_is_revoked(api: Api, admin: httpx.AsyncClient) -> None:
    reader = await api.client(Scope.STREAM)
    await reader.get("/v1/events")
    lookups = api.keys.lookups
    assert (await reader.get("/v1/events")).status_code == 200
    assert api.keys.lookups == lookups

    key_id = next(key.id for key in api.keys.kept.values() if key.scopes == {Scope.STREAM})
    assert (await admin.delete(f"/v1/keys/{key_id}")).status_code == 204

    assert (await reader.get("/v1/events")).status_code == 401
    assert (await admin.delete(f"/v1/keys/{key_id}")).status_code == 404


async def test_a_key_that_another_process_revoked_is_forgotten_by_the_notice_in_the_log(api: Api) -> None:
    reader = await api.client(Scope.STREAM)
    await reader.get("/v1/events")
    (key_id,) = api.keys.kept
    await api.keys.revoke(key_id)
    assert (await reader.get("/v1/events")).status_code == 200

    api.keyring.feed(Page(after=Cursor(0), events=(_notice(key_id),)))

    assert (await reader.get("/v1/events")).status_code == 401


async def test_a_look_up_that_is_overtaken_by_a_revocation_is_not_kept(api: Api) -> None:
    class Overtaken(Keys):
        """Revokes the key while it is being looked up."""

        async def by_hash(self, hash_: bytes) -> Key | None:
            key = await super().by_hash(hash_)
            assert key is not None
            await self.revoke(key.id)
            keyring.forget(key.id)
            return key

    store = Overtaken()
    keyring = KeyRing(store)
    secret = await api.key(Scope.STREAM)
    (key,) = api.keys.kept.values()
    await store.add(key)

    assert await keyring.find(secret) == key

    assert await keyring.by_id(key.id) is None


def _notice(key_id: str) -> LoggedEvent:
    return LoggedEvent(
        cursor=Cursor(1),
        id="evt_1",
        type=EventType("gateway.key.revoked"),
        library_id="gateway",
        timestamp=START,
        accepted_at=START,
        data=b'{"key_id":"%b"}' % key_id.encode(),
    )


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_works(api: Api, admin: httpx.AsyncClient) -> None:
    made = await admin.post("/v1/keys", json={"name": "reader", "scopes": ["stream"], "library_ids": ["acme"]})

    assert made.status_code == 201
    assert made.json().keys() == {"id", "key", "name", "scopes", "library_ids", "created_at"}
    reader = await api.client()
    used = await reader.get("/v1/events", headers={"authorization": f"Bearer {made.json()['key']}"})
    assert used.status_code == 200
    listed = (await admin.get("/v1/keys")).json()["data"]
    assert listed[0] == {name: value for name, value in made.json().items() if name != "key"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scopes": ["stream"]}, "/name"),
        ({"name": "", "scopes": ["stream"]}, "/name"),
        ({"name": 3, "scopes": ["stream"]}, "/name"),
        ({"name": "x"}, "/scopes"),
        ({"name": "x", "scopes": []}, "/scopes"),
        ({"name": "x", "scopes": "stream"}, "/scopes"),
        ({"name": "x", "scopes": ["stream", "fly"]}, "/scopes/1"),
        ({"name": "x", "scopes": ["stream", "stream"]}, "/scopes"),
        ({"name": "x", "scopes": ["stream"], "library_ids": []}, "/library_ids"),
        ({"name": "x", "scopes": ["stream"], "library_ids": ["a", ".."]}, "/library_ids/1"),
        ({"name": "x", "scopes": ["admin"], "library_ids": ["a"]}, "/library_ids"),
        ({"name": "x", "scopes": ["stream"], "libraries": ["a"]}, "/libraries"),
        ({"name": "x\0", "scopes": ["stream"]}, "/name"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(
    admin: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    answer = await admin.post("/v1/keys", json=body)

    assert answer.status_code == 422, answer.text
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


# --- stream tokens ---------------------------------------------------------------------------------------------------


async def test_a_token_opens_streams_alone_with_no_more_than_its_limits(api: Api) -> None:
    @get("/stream", guards=[requires(Scope.STREAM)], opt={TAKES_TOKEN: True})
    async def stream(request: Request[None, Caller, State]) -> Response[list[str | None]]:
        caller = request.auth
        libraries = ",".join(sorted(caller.libraries or ()))
        return Response([caller.key_id, libraries, ",".join(caller.types or ()), str(caller.expires_at), caller.via])

    app = create_http(api.services, route_handlers=[stream])
    holder = await api.client(Scope.STREAM, libraries=["acme", "beta"], app=app)
    nobody = await api.client(app=app)
    made = await holder.post(
        "/v1/stream-tokens", json={"library_ids": ["acme"], "types": ["document.*"], "ttl_seconds": 60}
    )
    assert made.status_code == 201, made.text
    assert made.json()["expires_at"] == "2025-10-27T06:02:00.000000Z"
    params = {"token": made.json()["token"]}

    used = await nobody.get("/stream", params=params)

    assert used.json() == ["key_0000", "acme", "document.*", "2025-10-27 06:02:00+00:00", "token"]
    assert (await nobody.get("/v1/events", params=params)).status_code == 401
    assert (await nobody.post("/v1/stream-tokens", params=params, json={})).status_code == 401
    bearer = {"authorization": f"Bearer {params['token']}"}
    assert (await nobody.get("/v1/events", headers=bearer)).status_code == 401
    api.pass_time(timedelta(seconds=60))
    assert (await nobody.get("/stream", params=params)).status_code == 401


async def test_a_token_ends_with_its_key(api: Api, admin: httpx.AsyncClient) -> None:
    reader = await api.client(Scope.STREAM)
    key_id = max(api.keys.kept)
    token = (await reader.post("/v1/stream-tokens", json={})).json()["token"]
    assert (await api.tokens.read(token)).key_id == key_id

    await admin.delete(f"/v1/keys/{key_id}")

    with pytest.raises(Unauthenticated, match="revoked"):
        await api.tokens.read(token)


@pytest.mark.parametrize("change", ["alg none", "other audience", "other key", "cut", "no expiry"])
async def test_a_token_that_this_gateway_did_not_make_is_refused(api: Api, change: str) -> None:
    await api.key(Scope.STREAM)
    key = await api.keys.signing_key()
    claims = {"aud": "stream", "sub": "key_0000", "exp": 2**31, "libraries": None, "types": None}
    assert (await api.tokens.read(jwt.encode(claims, key, "HS256"))).key_id == "key_0000"
    forged = {
        "alg none": lambda: jwt.encode(claims, "", "none"),
        "other audience": lambda: jwt.encode({**claims, "aud": "console"}, key, "HS256"),
        "other key": lambda: jwt.encode(claims, key[::-1], "HS256"),
        "cut": lambda: jwt.encode(claims, key, "HS256")[:-2],
        "no expiry": lambda: jwt.encode({k: v for k, v in claims.items() if k != "exp"}, key, "HS256"),
    }[change]()

    with pytest.raises(Unauthenticated):
        await api.tokens.read(forged)


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"library_ids": ["other"]}, 403, "/library_ids/0"),
        ({"library_ids": []}, 422, "/library_ids"),
        ({"types": ["A"]}, 422, "/types/0"),
        ({"ttl_seconds": 0}, 422, "/ttl_seconds"),
        ({"ttl_seconds": 86_401}, 422, "/ttl_seconds"),
        ({"ttl_seconds": "60"}, 422, "/ttl_seconds"),
        ({"ttl_seconds": True}, 422, "/ttl_seconds"),
    ],
)
async def test_a_token_for_more_than_its_key_is_refused(
    api: Api, body: dict[str, object], status: int, pointer: str
) -> None:
    holder = await api.client(Scope.STREAM, libraries=["acme"])

    answer = await holder.post("/v1/stream-tokens", json=body)

    assert answer.status_code == status
    assert answer.json()["errors"][0]["pointer"] == pointer
