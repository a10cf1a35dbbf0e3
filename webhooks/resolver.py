"""Names to addresses, with a deadline: a name server that never answers holds up only those who need it.

c-ares asks in the event loop, without threads. With the threads of `getaddrinfo` a dozen slow names fill the pool, and
every other name waits behind them.
"""

import asyncio
import socket

from aiodns import error as ares
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver

DEADLINE_SECONDS = 5.0

_NOT_FOUND = {ares.ARES_ENOTFOUND, ares.ARES_ENODATA, ares.ARES_ENONAME, ares.ARES_EBADNAME}


class LookupFailed(OSError):
    """No address for the name; the text says why, for a person."""

    def __init__(self, words: str, *, timed_out: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.timed_out = timed_out


class DeadlineResolver(AbstractResolver):
    """Asks *inner* (c-ares, unless a test brings its own) and gives up after *deadline_seconds*."""

    def __init__(self, inner: AbstractResolver | None = None, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._inner = inner or AsyncResolver(timeout=deadline_seconds / 2, tries=2)
        self._deadline_seconds = deadline_seconds

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises:
        LookupFailed: there is no address, or no answer in time.
        """
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await self._inner.resolve(host, port, family)
        except TimeoutError as error:
            raise LookupFailed("name server did not answer", timed_out=True) from error
        except OSError as error:
            raise _in_words(error) from error

    async def close(self) -> None:
        await self._inner.close()


def _in_words(error: OSError) -> LookupFailed:
    code = error.__cause__.args[0] if isinstance(error.__cause__, ares.DNSError) else None
    if code in _NOT_FOUND:
        return LookupFailed("name not found")
    if code in {ares.ARES_ETIMEOUT, ares.ARES_ECONNREFUSED}:
        return LookupFailed("name server did not answer", timed_out=True)
    return LookupFailed("name could not be resolved")
