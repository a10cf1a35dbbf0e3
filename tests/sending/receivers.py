"""Receivers of every kind on loopback, as scripts of bytes; and certificates for them."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Behaviour = Callable[["Caller"], Awaitable[None]]


@dataclass
class Caller:
    """One connection to a receiver."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    requests: list[bytes]
    """Of all connections to the same receiver: those that were read whole."""

    async def request(self) -> bytes:
        """The next request, whole; nothing when the sender has gone."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            request = head + await self.reader.readexactly(length)
        except asyncio.IncompleteReadError:
            return b""
        self.requests.append(request)
        return request

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the sender closes."""
        while await self.reader.read(65_536):
            continue

    def reset(self) -> None:
        """End the connection with a RST instead of a FIN."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Receiver:
    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A connection has ended."""

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/hooks"


def answering(answer: bytes) -> Behaviour:
    """Reads each request and answers it, as long as the connection lasts."""

    async def behave(caller: Caller) -> None:
        while await caller.request():
            await caller.say(answer)

    return behave


OK = answering(b"HTTP/1.1 204 No Content\r\n\r\n")


@asynccontextmanager
async def receiving(
    behave: Behaviour, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    tasks: set[asyncio.Task[None]] = set()
    receiver = Receiver(port=0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        receiver.connections += 1
        try:
            await behave(Caller(reader, writer, receiver.connections, receiver.requests))
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            return
        finally:
            tasks.discard(task)
            receiver.left.set()
            writer.transport.abort()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()


class Authority:
    """Signs certificates that a test's sender trusts, in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of the tests")])
        self._certificate = self._sign(self._name, self._key.public_key(), is_authority=True)

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self._certificate.public_bytes(serialization.Encoding.PEM).decode())
        return context

    def serving(
        self, *names: str, expired: bool = False, not_yet: bool = False, self_signed: bool = False
    ) -> ssl.SSLContext:
        """For a receiver: a certificate for *names* (and addresses)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = self._sign(
            subject,
            key.public_key(),
            names=names,
            expired=expired,
            not_yet=not_yet,
            signer=key if self_signed else None,
        )
        path = self._folder / f"{certificate.serial_number}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        *,
        names: tuple[str, ...] = (),
        is_authority: bool = False,
        expired: bool = False,
        not_yet: bool = False,
        signer: ec.EllipticCurvePrivateKey | None = None,
    ) -> x509.Certificate:
        day, now = timedelta(days=1), datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name if signer is None else subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + day if not_yet else now - 2 * day)
            .not_valid_after(now - day if expired else now + 2 * day)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            alternatives = [
                x509.IPAddress(IPv4Address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(signer or self._key, hashes.SHA256())
