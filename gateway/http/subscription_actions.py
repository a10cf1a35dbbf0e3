"""Secrets of a subscription, and a test of its receiver."""

from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from litestar import Controller, Request, Response, get, post
from litestar.params import FromPath, RawBody
from pydantic import Field

from gateway.errors import Conflict, NotFound
from gateway.http.answers import Answer, answer
from gateway.http.auth import Caller, requires
from gateway.http.bodies import Body, parse
from gateway.http.delivery_schemas import AttemptOut, attempt_out
from gateway.http.operations import Operation, Says, describes
from gateway.http.services import Use
from gateway.http.subscription_schemas import read_secret
from gateway.http.subscriptions import UPDATED, change, visible
from gateway.keys import Scope
from gateway.subscriptions import Subscription
from webhooks.signing import Secret, new_secret

DAY = 86_400
MAX_SECRETS = 10
"""Every valid one signs each request: rotating in a loop must not make headers without end."""


class SecretOut(Answer):
    secret: Annotated[str, Field(examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"])]


class Rotation(Body):
    grace_seconds: Annotated[
        int, Field(ge=0, le=7 * DAY, description="How long the old secret signs along with the new one.")
    ] = DAY
    secret: Annotated[str | None, Field(description="Your own; one is made if left out.")] = None


class RotationOut(Answer):
    secret: Annotated[str | None, Field(description="The new one; null with `v1a`: see its public key.")]


class PublicKey(Answer):
    public_key: Annotated[str, Field(examples=["whpk_MCowBQYDK2VwAyEA"])]
    valid: Annotated[list[str], Field(description="All that sign now: more than one in the grace of a rotation.")]


class SubscriptionActionController(Controller):
    path = "/v1/subscriptions/{subscription_id:str}"
    tags = ("Subscriptions",)
    guards = (requires(Scope.SUBSCRIPTIONS),)

    @get(
        "/secret",
        opt=describes(
            Operation(
                summary="Read the secret",
                answers={200: Says(description="What its requests are signed with.", content=SecretOut)},
                problems=(NotFound, Conflict),
            )
        ),
    )
    async def secret(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        newest = (await visible(services, request.auth, subscription_id)).secrets[0]
        if newest.public_key is not None:
            raise Conflict("it signs with v1a, whose private half is never answered: see its public-key")
        return answer(SecretOut(secret=newest.text))

    @get(
        "/public-key",
        opt=describes(
            Operation(
                summary="Read the public key",
                answers={200: Says(description="What receivers verify `v1a` with.", content=PublicKey)},
                problems=(NotFound, Conflict),
            )
        ),
    )
    async def public_key(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        subscription = await visible(services, request.auth, subscription_id)
        now = services.clock()
        keys = [secret.public_key for secret in subscription.secrets if secret.is_valid(now)]
        known = [key for key in keys if key is not None]
        if not known:
            raise Conflict("it signs with v1, which has no public key")
        return answer(PublicKey(public_key=known[0], valid=known))

    @post(
        "/rotate-secret",
        status_code=HTTPStatus.OK,
        opt=describes(
            Operation(
                summary="Change the secret",
                description="Until the grace ends both sign, so that a receiver can change over in peace.",
                body=Rotation,
                body_optional=True,
                answers={200: Says(description="The new secret.", content=RotationOut)},
                problems=(NotFound,),
            )
        ),
    )
    async def rotate(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], body: RawBody, services: Use
    ) -> Response[bytes]:
        subscription = await visible(services, request.auth, subscription_id)
        wanted = parse(Rotation, body or b"{}")
        given = None if wanted.secret is None else read_secret(wanted.secret, subscription.signature)
        until = services.clock() + timedelta(seconds=wanted.grace_seconds)

        def rotated(current: Subscription) -> Subscription:
            fresh = given or new_secret(current.signature)
            kept = [_until(secret, until) for secret in current.secrets if secret.is_valid(services.clock())]
            return replace(current, secrets=(fresh, *[old for old in kept if old.key != fresh.key][: MAX_SECRETS - 1]))

        fresh = (await change(services, subscription_id, rotated, UPDATED)).secrets[0]
        return answer(RotationOut(secret=fresh.text if fresh.public_key is None else None))

    @post(
        "/test",
        status_code=HTTPStatus.OK,
        opt=describes(
            Operation(
                summary="Send a test",
                description="Sends `gateway.ping` now, whatever the status, and answers how it went. It counts for "
                "nothing.",
                answers={200: Says(description="The attempt, good or bad.", content=AttemptOut)},
                problems=(NotFound,),
            )
        ),
    )
    async def test(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        subscription = await visible(services, request.auth, subscription_id)
        return answer(AttemptOut(**attempt_out(await services.ping(subscription))))


def _until(secret: Secret, moment: datetime) -> Secret:
    """*secret*, good until *moment* or until its own end, whichever is earlier."""
    return (
        secret if secret.expires_at is not None and secret.expires_at < moment else replace(secret, expires_at=moment)
    )
