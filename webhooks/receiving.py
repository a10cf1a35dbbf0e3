"""The receiver's half: is this request from the gateway, fresh, and as it was signed?"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from webhooks.errors import BadBody, BadSecret, BadTimestamp, MissingHeader, NoMatchingSignature, TooNew, TooOld
from webhooks.signing import Secret, Verifier, sign, to_sign, with_prefix

TOLERANCE_SECONDS = 300


def _now() -> datetime:
    return datetime.now(UTC)


class Webhook:
    """Verifies what the gateway, or any other sender that follows Standard Webhooks 1.0, has posted.

    *secret* is `whsec_…` (or its bare base64), `whpk_…` for endpoints with `"signature": "v1a"`, or several of them:
    while a secret is being replaced a receiver accepts the old one and the new one.

        Webhook("whsec_…").verify(request.body, request.headers)

    Raises:
        BadSecret: *secret* is none of these.
    """

    def __init__(self, secret: str | Secret | Iterable[str | Secret], *, clock: Callable[[], datetime] = _now) -> None:
        self._secrets: Sequence[str | Secret] = [secret] if isinstance(secret, str | Secret) else list(secret)
        if not self._secrets:
            raise BadSecret("at least one secret is needed")
        self._verifiers = [
            Verifier.of(one) if isinstance(one, Secret) else Verifier.parse(one) for one in self._secrets
        ]
        self._clock = clock

    def verify(self, body: bytes | str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 - whatever JSON holds
        """The body's JSON, once it is certain who sent it. *body* is what came over the wire, not parsed and rewritten.

        Raises:
            MissingHeader, BadTimestamp, TooOld, TooNew, NoMatchingSignature, BadBody: all VerificationError.
        """
        raw = body.encode() if isinstance(body, str) else bytes(body)
        values = {name.lower(): value for name, value in headers.items()}
        message_id = _header(values, "webhook-id")
        timestamp = _header(values, "webhook-timestamp")
        signatures = _header(values, "webhook-signature").split()
        self._check_age(timestamp)
        signed = to_sign(message_id, timestamp, raw)
        # Every pair is tried, whatever the ones before it gave: how long it takes tells nothing.
        if not any([verifier.accepts(one, signed) for verifier in self._verifiers for one in signatures]):  # noqa: C419
            raise NoMatchingSignature(f"none of {len(signatures)} signature(s) fits the body and the secret")
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadBody("the body is signed, but it is not JSON in UTF-8") from error

    def sign(self, message_id: str, body: bytes | str, timestamp: datetime | None = None) -> dict[str, str]:
        """The three headers a sender would put on *body*, to test a receiver with.

        Raises:
            BadSecret: there is only a public key.
        """
        raw = body.encode() if isinstance(body, str) else body
        moment = timestamp or self._clock()
        seconds = math.floor(moment.timestamp())
        signature = sign([_private(one) for one in self._secrets], message_id, seconds, raw, moment)
        return {"webhook-id": message_id, "webhook-timestamp": str(seconds), "webhook-signature": signature}

    def _check_age(self, timestamp: str) -> None:
        # Signed is the text, so only plain digits are a number here: "+1", "1_0" and "1e9" are not.
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            raise BadTimestamp("webhook-timestamp is not a number of seconds since 1970")
        age = self._clock().timestamp() - int(timestamp)
        if age > TOLERANCE_SECONDS:
            raise TooOld(f"signed {age:.0f} s ago, more than {TOLERANCE_SECONDS} s")
        if age < -TOLERANCE_SECONDS:
            raise TooNew(f"signed {-age:.0f} s in the future, more than {TOLERANCE_SECONDS} s")


def _header(values: Mapping[str, str], name: str) -> str:
    if not (value := values.get(name)):
        raise MissingHeader(f"the header {name} is missing")
    return value


def _private(secret: str | Secret) -> Secret:
    return secret if isinstance(secret, Secret) else Secret.parse(with_prefix(secret))
