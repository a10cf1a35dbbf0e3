"""Secrets at rest: encrypted with the first key of GATEWAY_SECRET_KEY, read with any of them.

    plain bytes ──seal──▶ sealed:<which key>:<Fernet token> ──open──▶ plain bytes

A sealed value says so itself, and with which key. So a database may hold plain and sealed ones side by side, and what
is not sealed with the first key is found without opening it: that is sealed anew whenever the database is opened.
"""

import base64
import hashlib
import re
from collections.abc import Sequence

import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import BindParameter, Column, LargeBinary, bindparam, func, or_, select, update

from gateway.errors import StorageUnavailable
from gateway.storage.connection import Connection
from gateway.storage.dialects import upsert
from gateway.storage.tables import subscriptions, vault

SETTING = "GATEWAY_SECRET_KEY"
ROWS_AT_ONCE = 500
_PREFIX = b"sealed:"
_CANARY = "canary"
_SONG = b"all is well"
_FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=", re.ASCII)
_SEALED = ((subscriptions.c.id, (subscriptions.c.headers, subscriptions.c.secrets)), (vault.c.name, (vault.c.value,)))
"""All that is sealed, and how its rows are told apart."""

_logger = structlog.get_logger(__name__)


class Seal:
    """*keys* are Fernet keys, or passphrases from which such are made. Without any it leaves everything as it is."""

    __slots__ = ("_fernet", "_mark")

    def __init__(self, keys: Sequence[str] = ()) -> None:
        made = [_fernet_key(key) for key in keys]
        self._fernet = MultiFernet([Fernet(key) for key in made]) if made else None
        self._mark = _mark_of(made[0]) if made else b""

    @property
    def has_keys(self) -> bool:
        return self._fernet is not None

    @property
    def mark(self) -> bytes:
        """What everything begins with that the first key has sealed."""
        return self._mark

    def seal(self, value: bytes) -> bytes:
        return value if self._fernet is None else self._mark + self._fernet.encrypt(value)

    def open(self, value: bytes) -> bytes:
        """What was sealed; a plain value as it is.

        Raises:
            StorageUnavailable: it was sealed with a key that is not among these.
        """
        if (opened := self.try_open(value)) is None:
            _logger.error("sealing.cannot_open", hint=f"it was sealed with a key that is not in {SETTING}")
            raise StorageUnavailable(f"A secret was encrypted with a key that is not in {SETTING}")
        return opened

    def try_open(self, value: bytes) -> bytes | None:
        """As `open`, but None when it was sealed with another key."""
        if not value.startswith(_PREFIX):
            return value
        if self._fernet is None:
            return None
        try:
            return self._fernet.decrypt(value[len(_PREFIX) :].partition(b":")[2])
        except InvalidToken:
            return None


PLAIN = Seal()


async def prepare(connection: Connection, seal: Seal, *, rows_at_once: int = ROWS_AT_ONCE) -> bool:
    """See that *seal* fits the database, and seal with its first key what is not. Whether anything was.

    It is done within the transaction of *connection*: one that is cut short leaves all as it was.

    Raises:
        StorageUnavailable: it does not fit, in words that say what to do.
    """
    canary = await connection.scalar(select(vault.c.value).where(vault.c.name == _CANARY))
    if not seal.has_keys:
        if canary is not None:
            raise StorageUnavailable(
                f"The secrets in this database are encrypted: set {SETTING} to the keys that it was last run with"
            )
        return False
    if canary is not None and seal.try_open(canary) is None:
        raise StorageUnavailable(
            f"No key in {SETTING} opens the secrets in this database: list the one that it was last run with, too, "
            "after any new one"
        )
    count = sum([await _seal_rows(connection, seal, key, columns, rows_at_once) for key, columns in _SEALED])
    if canary is None:
        await connection.execute(upsert(connection, vault), {"name": _CANARY, "value": seal.seal(_SONG)})
    if count:
        _logger.info("sealing.sealed", rows=count)
    return count > 0


async def _seal_rows(
    connection: Connection, seal: Seal, key: Column[str], columns: Sequence[Column[bytes]], rows_at_once: int
) -> int:
    """Seal with the first key what is not, row by row; how many rows it were."""
    beginnings = [func.substr(column, 1, len(seal.mark), type_=LargeBinary) for column in columns]
    stale = or_(*(beginning != seal.mark for beginning in beginnings))
    some = select(key, *columns).where(stale, key > bindparam("after")).order_by(key).limit(rows_at_once)
    some = some.with_for_update()  # other processes may be at work, and change what is read here
    values: dict[str, BindParameter[bytes]] = {column.name: bindparam(f"new_{column.name}") for column in columns}
    renew = update(key.table).where(key == bindparam("key_of_row")).values(values)
    count, after = 0, ""
    while rows := (await connection.execute(some, {"after": after})).all():
        after = rows[-1][0]
        count += len(rows)
        await connection.execute(
            renew,
            [
                {"key_of_row": id_}
                | {
                    f"new_{column.name}": seal.seal(seal.open(value))
                    for column, value in zip(columns, found, strict=True)
                }
                for id_, *found in rows
            ],
        )
    return count


def _mark_of(key: bytes) -> bytes:
    """Tells keys apart, and nothing else about them: so short a part of a hash fits countless keys."""
    return b"%b%b:" % (_PREFIX, hashlib.sha256(b"arrw-gateway " + key).hexdigest()[:8].encode())


def _fernet_key(text: str) -> bytes:
    """*text* itself if it is a Fernet key, else one made from it, slowly, since people choose what others can guess."""
    if _FERNET_KEY.fullmatch(text):
        return text.encode()
    derived = hashlib.scrypt(text.encode(), salt=b"arrw-gateway secret key", n=2**14, r=8, p=1, dklen=32)
    return base64.urlsafe_b64encode(derived)
