"""How the bytes of a stream reach its reader: detached from the request on our own uvicorn protocol, or plain ASGI."""

from gateway.http.wire.detached import StreamProtocol
from gateway.http.wire.response import StreamResponse

__all__ = ["StreamProtocol", "StreamResponse"]
