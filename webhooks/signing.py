"""Secrets, and the signatures made with them: Standard Webhooks 1.0, symmetric (v1) and asymmetric (v1a).

    v1     whsec_<base64 of 24–64 random bytes>           HMAC-SHA256, both sides hold the secret
    v1a    whsk_<base64 of seed and public key>, private  Ed25519, the receiver holds whpk_<base64 of the public key>

What is signed is `id.timestamp.body`, the bytes that are sent.
"""

import base64
import binascii
import hmac
import secrets as random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from webhooks.errors import BadSecret

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public beginning of every secret, not one of them
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"


class Signature(StrEnum):
    """Which signature an endpoint gets."""

    V1 = "v1"
    V1A = "v1a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What an endpoint's requests are signed with, until `expires_at` (None: for as long as it is there).

    `key` is the HMAC key (v1) or the 32 bytes of an Ed25519 seed (v1a). It is never printed.
    """

    key: bytes = field(repr=False)
    signature: Signature = Signature.V1
    expires_at: datetime | None = None

    @classmethod
    def parse(cls, text: str, expires_at: datetime | None = None) -> "Secret":
        """Read `whsec_…` or `whsk_…` as a person gives it.

        Raises:
            BadSecret: it is anything else. The message does not repeat it.
        """
        if text.startswith(SECRET_PREFIX):
            key = _decode(text.removeprefix(SECRET_PREFIX))
            if not 24 <= len(key) <= 64:
                raise BadSecret(f"a {SECRET_PREFIX}… secret holds 24 to 64 bytes, this one {len(key)}")
            return cls(key=key, expires_at=expires_at)
        if text.startswith(PRIVATE_PREFIX):
            key = _decode(text.removeprefix(PRIVATE_PREFIX))
            seed, public = key[:32], key[32:]
            if len(seed) != 32 or public not in {b"", _public_of(seed)}:
                raise BadSecret(
                    f"a {PRIVATE_PREFIX}… key is an Ed25519 seed of 32 bytes, with its public key or without"
                )
            return cls(key=seed, signature=Signature.V1A, expires_at=expires_at)
        raise BadSecret(f"a secret starts with {SECRET_PREFIX} (or {PRIVATE_PREFIX}, an Ed25519 key), then base64")

    @property
    def text(self) -> str:
        """As its owner sees it, and as `parse` reads it."""
        if self.signature is Signature.V1:
            return SECRET_PREFIX + base64.b64encode(self.key).decode()
        return PRIVATE_PREFIX + base64.b64encode(self.key + _public_of(self.key)).decode()

    @property
    def public_key(self) -> str | None:
        """`whpk_…`, for receivers of v1a; None for v1, which has no public half."""
        if self.signature is Signature.V1:
            return None
        return PUBLIC_PREFIX + base64.b64encode(_public_of(self.key)).decode()

    def is_valid(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at

    def sign(self, signed: bytes) -> str:
        """`v1,<base64>` or `v1a,<base64>` over *signed*, which is `id.timestamp.body`."""
        if self.signature is Signature.V1:
            return "v1," + base64.b64encode(hmac.digest(self.key, signed, "sha256")).decode()
        return "v1a," + base64.b64encode(_private_of(self.key).sign(signed)).decode()


def new_secret(signature: Signature | str = Signature.V1) -> Secret:
    """A fresh one of 256 random bits."""
    return Secret(key=random.token_bytes(32), signature=Signature(signature))


def sign(secrets: Iterable[Secret], message_id: str, timestamp: int, body: bytes, now: datetime) -> str:
    """The value of `webhook-signature`: one signature for each secret that is valid *now*, separated by spaces."""
    signed = to_sign(message_id, timestamp, body)
    return " ".join([secret.sign(signed) for secret in secrets if secret.is_valid(now)])


def to_sign(message_id: str, timestamp: int | str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (message_id.encode(), str(timestamp).encode(), body)


@dataclass(frozen=True, slots=True)
class Verifier:
    """The receiver's half of a secret: the same HMAC key, or the public key alone."""

    key: bytes = field(repr=False)
    signature: Signature

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Read `whsec_…`, its bare base64, `whpk_…` or `whsk_…`.

        Raises:
            BadSecret: it is anything else.
        """
        if text.startswith(PUBLIC_PREFIX):
            key = _decode(text.removeprefix(PUBLIC_PREFIX))
            if len(key) != 32:
                raise BadSecret(f"a {PUBLIC_PREFIX}… key holds 32 bytes, this one {len(key)}")
            return cls(key, Signature.V1A)
        return cls.of(Secret.parse(with_prefix(text)))

    @classmethod
    def of(cls, secret: Secret) -> "Verifier":
        is_symmetric = secret.signature is Signature.V1
        return cls(secret.key if is_symmetric else _public_of(secret.key), secret.signature)

    def accepts(self, signature: str, signed: bytes) -> bool:
        """Whether *signature* (`v1,<base64>`) was made over *signed* with this one's secret, in constant time."""
        version, _, encoded = signature.partition(",")
        if version != self.signature.value:
            return False
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        if self.signature is Signature.V1:
            return hmac.compare_digest(given, hmac.digest(self.key, signed, "sha256"))
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(given, signed)
        except InvalidSignature:
            return False
        return True


def with_prefix(text: str) -> str:
    """Bare base64 is a `whsec_` secret, as other libraries of Standard Webhooks take it too."""
    return text if text.startswith((SECRET_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX)) else SECRET_PREFIX + text


@lru_cache(maxsize=256)  # reading a seed costs twice what signing does
def _private_of(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def _public_of(seed: bytes) -> bytes:
    return _private_of(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSecret("a secret is base64 after its prefix, in the alphabet with + and /") from error
