"""How a stream's bytes reach its reader: detached from the request on our own uvicorn protocols, or by plain ASGI."""

from gateway.http.wire.detached import StreamProtocol
from gateway.http.wire.response import StreamResponse
from gateway.http.wire.sockets import SocketProtocol

__all__ = ["SocketProtocol", "StreamProtocol", "StreamResponse"]
