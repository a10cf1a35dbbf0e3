"""What can go wrong, as each half of this package tells it.

ValueError
├── BadSecret                   a secret that is not `whsec_…`, `whsk_…` or `whpk_…`
└── BadDestination              a URL that no delivery can be sent to
    └── ForbiddenDestination        … because of where it leads

VerificationError               for receivers: do not trust this request
├── MissingHeader
├── BadTimestamp                not a number of seconds
│   ├── TooOld
│   └── TooNew
├── NoMatchingSignature
└── BadBody                     signed, but not JSON
"""


class BadSecret(ValueError):
    """Not a secret that this package can sign or verify with."""


class BadDestination(ValueError):
    """Not a URL that deliveries can be sent to; the message is for the person who gave it."""


class ForbiddenDestination(BadDestination):
    """It leads to an address that the gateway does not connect to."""


class VerificationError(Exception):
    """The request is not to be trusted; the message says what was wrong with it."""


class MissingHeader(VerificationError):
    """One of `webhook-id`, `webhook-timestamp`, `webhook-signature` is not there, or is empty."""


class BadTimestamp(VerificationError):
    """`webhook-timestamp` is not a number of seconds since 1970."""


class TooOld(BadTimestamp):
    """Signed longer ago than the tolerance: perhaps recorded and sent again by somebody else."""


class TooNew(BadTimestamp):
    """Signed further in the future than the tolerance: one of the two clocks is wrong."""


class NoMatchingSignature(VerificationError):
    """None of its signatures was made with any of the secrets over these bytes."""


class BadBody(VerificationError):
    """The signature is right, and yet the body is not JSON in UTF-8."""
