"""aiohttp's exceptions as httpx's, with words that tell the owner of a receiver what to mend.

httpx.TransportError
├── ConnectError           refused, no such name, broken TLS
│   └── AddressForbidden   every address that it leads to is one that is not connected to
├── ConnectTimeout         no answer from the name server, or from the host
├── WriteTimeout           it would have gone out after its time
├── ReadError              closed or reset before the answer was complete
└── RemoteProtocolError    it answered, but not in HTTP
"""

import errno
import os
import ssl

import aiohttp
import httpx

from webhooks.resolver import LookupFailed

_CERTIFICATE = {
    9: "certificate not valid yet",
    10: "certificate expired",
    18: "certificate self-signed",
    19: "certificate of an unknown authority",
    20: "certificate of an unknown authority",
    21: "certificate of an unknown authority",
    23: "certificate revoked",
    62: "certificate is for another name",
    64: "certificate is for another address",
}
"""OpenSSL's verify codes (X509_V_ERR_…)."""

_SYSTEM = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
}


class AddressForbidden(httpx.ConnectError):
    """The destination is not an address of the public internet, nor one that was opened."""


class TooLate(Exception):
    """It did not go out in its time, and is not to go any more."""


def translate(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """*error*, which aiohttp raised while sending *request*."""
    match error:
        case aiohttp.ClientConnectorError() | aiohttp.ClientConnectorCertificateError():
            return _unconnected(error, request)
        case aiohttp.ClientConnectionError(__cause__=TooLate()):
            return httpx.WriteTimeout("too late to be sent: the process was stopped meanwhile", request=request)
        case aiohttp.ClientResponseError():
            too_long = "Got more than" in error.message or "Too many" in error.message
            words = "the headers of the answer are too large" if too_long else "the answer is not HTTP"
            return httpx.RemoteProtocolError(words, request=request)
        case aiohttp.ServerDisconnectedError():
            return httpx.ReadError("connection closed without an answer", request=request)
        case aiohttp.ClientPayloadError():
            return httpx.ReadError("connection closed within the answer", request=request)
        case aiohttp.InvalidURL():
            return httpx.UnsupportedProtocol("not a URL that can be connected to", request=request)
        case OSError():
            return httpx.ReadError(_system(error, "connection lost"), request=request)
        case _:
            return httpx.ReadError("connection lost", request=request)


def _unconnected(
    error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError, request: httpx.Request
) -> httpx.TransportError:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return httpx.ConnectError(_certificate(error.certificate_error), request=request)
        case aiohttp.ClientConnectorSSLError():
            return httpx.ConnectError(_tls(error.os_error), request=request)
        case aiohttp.ClientConnectorDNSError(os_error=LookupFailed() as failed):
            kind = httpx.ConnectTimeout if failed.timed_out else httpx.ConnectError
            return kind(failed.words, request=request)
        case _ if error.os_error.errno == errno.ETIMEDOUT:
            return httpx.ConnectTimeout("connection timed out", request=request)
        case _ if error.os_error.errno is None and request.url.scheme == "https":
            # What the system refuses has a number: here there was a connection, and its end came within the handshake.
            return httpx.ConnectError("connection closed within the TLS handshake", request=request)
        case _:
            return httpx.ConnectError(_system(error.os_error, "could not connect"), request=request)


def _system(error: OSError, otherwise: str) -> str:
    if isinstance(error.__cause__, ssl.SSLError):
        return _tls(error.__cause__)
    if error.errno is None:
        return otherwise
    return _SYSTEM.get(error.errno) or f"{otherwise}: {os.strerror(error.errno).lower()}"


def _certificate(error: BaseException) -> str:
    code = getattr(error, "verify_code", None)
    return _CERTIFICATE.get(code or 0) or f"certificate refused: {getattr(error, 'verify_message', 'invalid')}"


def _tls(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return f"TLS failed: {reason.replace('_', ' ').lower()}" if isinstance(reason, str) else "TLS failed"
