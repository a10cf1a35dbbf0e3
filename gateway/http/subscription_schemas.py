"""A subscription as its owner writes it and reads it.

SubscriptionIn ──▶ Subscription ──▶ SubscriptionOut        secrets and header values go in, and do not come out
     ▲ merge patch ──────┘
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gateway.errors import Fault, InvalidInput
from gateway.filters import Filter
from gateway.http.answers import Answer, Time
from gateway.http.bodies import Body, pointer
from gateway.subscriptions import Subscription
from webhooks.endpoints import Ordering, Payload
from webhooks.signing import Secret, Signature, new_secret

MAX_HEADERS = 50
MAX_METADATA_BYTES = 16 * 1024
WEEK = 7 * 86_400

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]{0,4094}[!-~])?)?", re.ASCII)
_REFUSED_HEADERS = frozenset({"host", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer"})
_REFUSED_PREFIXES = ("content-", "webhook-")

EXAMPLE: dict[str, Any] = {"url": "https://example.com/hooks", "types": ["document.*"]}


class SubscriptionFields(Body):
    """What its owner can set, and change."""

    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=2048,
            description="Where its events are sent: http or https, on the public internet.",
            examples=["https://example.com/hooks"],
        ),
    ]
    library_ids: Annotated[list[str] | None, Field(description="Any of these; null: all.")] = None
    types: Annotated[
        list[str] | None, Field(description="Any of these: exact, a branch `document.*`, or `*`; null: all.")
    ] = None
    filter: Annotated[str | None, Field(description="A CEL expression over `event`.")] = None
    description: Annotated[str, Field(max_length=2000)] = ""
    headers: Annotated[
        dict[str, str],
        Field(max_length=MAX_HEADERS, description="Sent along with each event. Values are write-only."),
    ] = Field(default_factory=dict)
    signature: Literal["v1", "v1a"] = "v1"
    ordering: Literal["none", "library"] = "none"
    max_in_flight: Annotated[int, Field(ge=1, le=1000, description="Requests at the same time.")] = 8
    max_per_second: Annotated[float | None, Field(gt=0, le=100_000, description="null: no limit.")] = None
    timeout_seconds: Annotated[float | None, Field(gt=0, le=60, description="null: the gateway's own.")] = None
    retry_schedule: Annotated[
        list[Annotated[float, Field(ge=0, le=WEEK)]] | None,
        Field(max_length=100, description="Seconds to wait after each failed attempt; null: the gateway's own."),
    ] = None
    payload: Literal["standard", "cloudevents"] = "standard"
    metadata: Annotated[dict[str, Any], Field(description="Anything; it is kept and answered.")] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        faults = _header_faults(self.headers)
        if len(json.dumps(self.metadata)) > MAX_METADATA_BYTES:
            faults.append(Fault("/metadata", f"is larger than {MAX_METADATA_BYTES} bytes"))
        try:
            self.as_filter()
        except InvalidInput as error:
            faults.extend(error.faults)
        if faults:
            raise InvalidInput(f"{faults[0].pointer} {faults[0].detail}", faults)
        return self

    def as_filter(self) -> Filter:
        return Filter.parse(library_ids=self.library_ids, types=self.types, expression=self.filter)

    def apply(self, to: Subscription, *, default_timeout_seconds: float) -> Subscription:
        """*to* with these fields. Signed another way than before, it gets a new secret."""
        secrets = to.secrets
        if self.signature != to.signature:
            secrets = (new_secret(self.signature),)
        return replace(
            to,
            url=self.url,
            filter=self.as_filter(),
            description=self.description,
            headers=self.headers,
            signature=self.signature,
            ordering=Ordering(self.ordering),
            payload=Payload(self.payload),
            max_in_flight=self.max_in_flight,
            max_per_second=self.max_per_second,
            timeout_seconds=self.timeout_seconds if self.timeout_seconds is not None else default_timeout_seconds,
            retry_schedule=None if self.retry_schedule is None else tuple(self.retry_schedule),
            metadata=self.metadata,
            secrets=secrets,
        )


class SubscriptionIn(SubscriptionFields):
    secret: Annotated[
        str | None,
        Field(description="Your own, `whsec_` and 24 to 64 bytes in base64; one is made if left out."),
    ] = None

    @model_validator(mode="after")
    def _secret_fits(self) -> Self:
        self.first_secret()
        return self

    def first_secret(self) -> Secret:
        return new_secret(self.signature) if self.secret is None else read_secret(self.secret, self.signature)


class SubscriptionOut(Answer):
    id: str
    url: str
    library_ids: list[str] | None
    types: list[str] | None
    filter: str | None
    description: str
    headers: Annotated[dict[str, None], Field(description="The names; what they are set to is not answered.")]
    signature: Literal["v1", "v1a"]
    ordering: Literal["none", "library"]
    max_in_flight: int
    max_per_second: float | None
    timeout_seconds: float
    retry_schedule: list[float] | None
    payload: Literal["standard", "cloudevents"]
    metadata: dict[str, Any]
    status: Annotated[Literal["active", "paused", "disabled"], Field(description="Paused by a person, or disabled.")]
    disabled_reason: str | None
    created_at: Time
    created_by: Annotated[str, Field(description="The id of the key that made it.")]


class SubscriptionMade(SubscriptionOut):
    secret: Annotated[
        str | None,
        Field(description="What its requests are signed with, shown this once; null with `v1a`: see its public key."),
    ]


def out(subscription: Subscription) -> dict[str, Any]:
    """The fields of `SubscriptionOut`."""
    return {
        **fields(subscription),
        "id": subscription.id,
        "headers": dict.fromkeys(subscription.headers),
        "status": str(subscription.status),
        "disabled_reason": subscription.disabled_reason,
        "created_at": subscription.created_at,
        "created_by": subscription.created_by,
    }


def fields(subscription: Subscription) -> dict[str, Any]:
    """The document that a merge patch changes: the fields of `SubscriptionFields`, header values included."""
    wanted = subscription.filter
    return {
        "url": subscription.url,
        "library_ids": None if wanted.library_ids is None else sorted(wanted.library_ids),
        "types": None if wanted.types is None else sorted(wanted.types),
        "filter": wanted.expression,
        "description": subscription.description,
        "headers": dict(subscription.headers),
        "signature": subscription.signature,
        "ordering": str(subscription.ordering),
        "max_in_flight": subscription.max_in_flight,
        "max_per_second": subscription.max_per_second,
        "timeout_seconds": subscription.timeout_seconds,
        "retry_schedule": None if subscription.retry_schedule is None else list(subscription.retry_schedule),
        "payload": str(subscription.payload),
        "metadata": dict(subscription.metadata),
    }


def with_known_header_names(patch: object, subscription: Subscription) -> object:
    """*patch*, its header names spelt as they are there already: names differ by more than case, or not at all."""
    if not isinstance(patch, dict) or not isinstance(patch.get("headers"), dict):
        return patch
    known = {name.lower(): name for name in subscription.headers}
    return {**patch, "headers": {known.get(name.lower(), name): value for name, value in patch["headers"].items()}}


def read_secret(text: str, signature: str) -> Secret:
    """*text* as a person gave it, for *signature*; `InvalidInput` at `/secret` when it is not one."""
    try:
        secret = Secret.parse(text)
    except ValueError as error:
        raise InvalidInput.at("/secret", str(error)) from None
    if secret.signature is not Signature(signature):
        raise InvalidInput.at("/secret", f"is not one for the signature {signature}")
    return secret


def check_url(url: str, check: Callable[[str], str]) -> str:
    """*url* as *check* normalises it; `InvalidInput` at `/url` when nothing can be sent there."""
    try:
        return check(url)
    except ValueError as error:
        raise InvalidInput.at("/url", str(error)) from None


def _header_faults(headers: Mapping[str, str]) -> list[Fault]:
    faults: list[Fault] = []
    seen: set[str] = set()
    for name, value in headers.items():
        place, lower = pointer(["headers", name]), name.lower()
        if not _HEADER_NAME.fullmatch(name):
            faults.append(Fault(place, "is not the name of a header"))
        elif lower in _REFUSED_HEADERS or lower.startswith(_REFUSED_PREFIXES):
            faults.append(Fault(place, "is set by the gateway itself"))
        elif lower in seen:
            faults.append(Fault(place, "is there twice: case makes no difference"))
        if not _HEADER_VALUE.fullmatch(value):
            faults.append(Fault(place, "has to be printable ASCII, at most 4,096 characters, not blank at an end"))
        seen.add(lower)
    return faults
