"""Signed webhooks. For receivers: `Webhook(secret).verify(body, headers)`, and what it raises."""

from webhooks.errors import (
    BadBody,
    BadSecret,
    BadTimestamp,
    MissingHeader,
    NoMatchingSignature,
    TooNew,
    TooOld,
    VerificationError,
)
from webhooks.receiving import Webhook

__all__ = [
    "BadBody",
    "BadSecret",
    "BadTimestamp",
    "MissingHeader",
    "NoMatchingSignature",
    "TooNew",
    "TooOld",
    "VerificationError",
    "Webhook",
]
