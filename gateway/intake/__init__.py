"""What publishers send becomes drafts: checked by the rules of API.md, every fault named where it is.

bytes ──▶ read_events ──▶ drafts ──▶ Publisher        Event ──▶ draft_of ──▶ draft ──▶ Publisher
"""

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from typeid import TypeID

from gateway.errors import Fault, InvalidInput, TooLarge
from gateway.events import GATEWAY_LIBRARY, GATEWAY_PREFIX, Draft, Event, EventType
from gateway.filters import MAX_NAME_LENGTH, library_id_fault
from gateway.intake.jsontext import Scanner, TooDeep, is_deeper_than, minified, text_of
from gateway.times import as_utc, parse_rfc3339, to_rfc3339

MAX_BATCH: Final = 1000
MAX_DEPTH: Final = 64
MAX_EVENT_BYTES: Final = 256 * 2**10
"""Of the event's JSON as readers get it."""
MAX_FAULTS: Final = 100
"""How many faults of one body are told."""
WRONG_COUNT: Final = f"must hold 1 to {MAX_BATCH} events"
TOO_DEEP: Final = f"must not be nested more than {MAX_DEPTH} deep"
MAX_FIELDS: Final = 100
"""Of what is no event; an event has five."""
RESERVED_IDS: Final = frozenset({"stats", "stream", "ws"})
"""They are paths beside `/v1/events/{id}`."""

_ENVELOPE_BYTES: Final = len('{"id":"","type":"","library_id":"","timestamp":"2025-10-27T06:01:00.000000Z","data":}')
_TYPE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_:-]+", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def read_events(body: bytes, *, traceparent: str | None = None) -> tuple[list[Draft], bool]:
    """The drafts of one event, or of an array of them, and whether it was an array.

    Of a name that is given twice the last one counts. *traceparent* is passed on if it is one (W3C Trace Context).

    Raises:
        MalformedInput: not UTF-8, not JSON.
        InvalidInput: naming each fault, up to 100.
        TooLarge: an event is larger than 256 KiB.
    """
    text = text_of(body)
    is_batch = text.lstrip(" \t\n\r").startswith("[")
    inspection = _Inspection(traceparent, is_batch=is_batch)
    sent: Sequence[_Sent | None]
    try:
        sent = _decode_many(body) if is_batch else [_decode_one(body)]
    except (msgspec.MsgspecError, RecursionError):
        sent = _read_slowly(text, inspection)
    return inspection.drafts(sent), is_batch


def draft_of(event: Event) -> Draft:
    """The draft of an event published in this process. Its data may hold UUIDs and datetimes, too.

    Raises:
        InvalidInput: naming each fault.
        TooLarge: it is larger than 256 KiB.
    """
    inspection = _Inspection(None, is_batch=False)
    sent = _Sent(
        type=str(event.type),
        library_id=inspection.text(event.library_id, "/library_id"),
        data=msgspec.Raw(_encoded(event.data)),
        timestamp=UNSET if event.timestamp is None else to_rfc3339(event.timestamp),
        id=UNSET if event.id is None else inspection.text(event.id, "/id"),
    )
    (draft,) = inspection.drafts([sent])
    return draft


class _Sent(msgspec.Struct, forbid_unknown_fields=True):
    """An event as a publisher writes it; `data` is its JSON as text."""

    type: str | UnsetType = UNSET
    library_id: str | UnsetType = UNSET
    data: msgspec.Raw | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET
    id: str | UnsetType = UNSET


_decode_one = msgspec.json.Decoder(_Sent).decode
_decode_many = msgspec.json.Decoder(list[_Sent]).decode


class _Inspection:
    """Checks what was sent, event by event, and remembers all that is wrong with it."""

    def __init__(self, traceparent: str | None, *, is_batch: bool) -> None:
        # As the standard asks, a broken traceparent is as if there were none.
        self._traceparent = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None
        self._is_batch = is_batch
        self._faults: dict[str, Fault] = {}
        self._oversized: list[Fault] = []

    def fault(self, pointer: str, detail: str) -> None:
        """The first thing said of a place is what is told."""
        if len(self._faults) < MAX_FAULTS:
            self._faults.setdefault(pointer, Fault(pointer, detail))

    def text(self, value: object, pointer: str) -> str:
        if isinstance(value, str):
            return value
        self.fault(pointer, "must be a string")
        return ""

    def drafts(self, sent: Sequence[_Sent | None]) -> list[Draft]:
        """What was sent, if nothing is wrong with it. None stands for what is no event: a fault that is known."""
        if self._is_batch and not self._faults and not 1 <= len(sent) <= MAX_BATCH:
            raise InvalidInput.at("", WRONG_COUNT)
        drafts = [
            self._draft(each, f"/{index}" if self._is_batch else "")
            for index, each in enumerate(sent)
            if each is not None
        ]
        if self._faults:
            first, *others = self._faults.values()
            more = f" (and {len(others)} more)" if others else ""
            raise InvalidInput(f"{first.pointer or 'body'}: {first.detail}{more}", list(self._faults.values()))
        if self._oversized:
            first = self._oversized[0]
            raise TooLarge(f"{first.pointer or 'the event'}: {first.detail}", self._oversized[:MAX_FAULTS])
        return drafts

    def _draft(self, sent: _Sent, at: str) -> Draft:
        type_ = self._checked(sent.type, f"{at}/type", type_fault)
        library_id = self._checked(sent.library_id, f"{at}/library_id", _library_fault)
        event_id = "" if sent.id is UNSET else self._checked(sent.id, f"{at}/id", _id_fault)
        event_id = event_id or str(TypeID("evt"))
        data = self._data(sent.data, f"{at}/data")
        size = _ENVELOPE_BYTES + len(type_) + len(library_id) + len(event_id) + len(data)
        if size > MAX_EVENT_BYTES:
            self._oversized.append(Fault(at, f"is larger than {MAX_EVENT_BYTES} bytes"))
        elif is_deeper_than(data, MAX_DEPTH):
            self.fault(f"{at}/data", TOO_DEEP)
        return Draft(
            id=event_id,
            type=EventType(type_),
            library_id=library_id,
            data=data,
            timestamp=None if sent.timestamp is UNSET else self._moment(sent.timestamp, f"{at}/timestamp"),
            traceparent=self._traceparent,
            id_is_own=sent.id is not UNSET,
        )

    def _checked(self, value: str | UnsetType, pointer: str, fault_of: Callable[[str], str | None]) -> str:
        if value is UNSET:
            self.fault(pointer, "is missing")
            return ""
        if (detail := fault_of(value)) is not None:
            self.fault(pointer, detail)
        return value

    def _data(self, raw: msgspec.Raw | UnsetType, pointer: str) -> bytes:
        if raw is UNSET:
            self.fault(pointer, "is missing")
            return b""
        text = bytes(raw)
        if not text.startswith(b"{"):
            self.fault(pointer, "must be a JSON object")
            return b""
        if len(text) > MAX_EVENT_BYTES and len(text.translate(None, b" \t\n\r")) > MAX_EVENT_BYTES:
            return text  # too large, whatever its white space
        return minified(text)

    def _moment(self, text: str, pointer: str) -> datetime | None:
        try:
            return parse_rfc3339(text)
        except ValueError as error:
            self.fault(pointer, str(error))
            return None


def type_fault(text: str) -> str | None:
    if len(text) > MAX_NAME_LENGTH or not _TYPE.fullmatch(text):
        return f"must be dotted lower case like document.added, of at most {MAX_NAME_LENGTH} characters"
    if f"{text}.".startswith(GATEWAY_PREFIX):
        return "must not begin with `gateway`: that is for the gateway's own events"
    return None


def _library_fault(text: str) -> str | None:
    return "must not be `gateway`: that is the gateway's own" if text == GATEWAY_LIBRARY else library_id_fault(text)


def _id_fault(text: str) -> str | None:
    if len(text) > MAX_NAME_LENGTH or not _ID.fullmatch(text):
        return f"must have 1 to {MAX_NAME_LENGTH} letters, digits and _ : -"
    return f"must not be `{text}`: it is reserved" if text in RESERVED_IDS else None


def _read_slowly(text: str, inspection: _Inspection) -> list[_Sent | None]:
    """What the fast decoder refused: half a surrogate pair, which is JSON, or input that is wrong; then where.

    It reads no further than is worth telling: what has too many events or fields is not accepted anyway.

    Raises:
        MalformedInput: *text* is not JSON.
    """
    scanner = Scanner(text)
    sent: list[_Sent | None] = []
    at = ""
    try:
        if scanner.peek() == "[":
            for index, _ in enumerate(scanner.items("]")):
                if index == MAX_BATCH:
                    raise InvalidInput.at("", WRONG_COUNT)
                at = f"/{index}"
                sent.append(_read_one(scanner, at, inspection))
        else:
            sent.append(_read_one(scanner, at, inspection))
    except TooDeep as error:
        inspection.fault(at + error.pointer, TOO_DEEP)  # where it ends, and what follows, cannot be known
        return sent
    scanner.end()
    return sent


def _read_one(scanner: Scanner, at: str, inspection: _Inspection) -> _Sent | None:
    if scanner.peek() != "{":
        scanner.value()
        inspection.fault(at, "must be a JSON object")
        return None
    found: dict[str, Any] = {}
    for index, _ in enumerate(scanner.items("}")):
        if index == MAX_FIELDS:
            raise InvalidInput.at(at, "has far too many fields")
        name = scanner.name()
        try:
            value = scanner.value()
        except TooDeep as error:
            raise TooDeep(f"/{_escaped(name)}") from error
        if name not in _Sent.__struct_fields__:
            inspection.fault(f"{at}/{_escaped(name)}", "is not a field of an event")
        elif name == "data":
            found[name] = msgspec.Raw(value.text.encode())
        else:
            found[name] = inspection.text(value.value, f"{at}/{name}")
    return _Sent(**found)


def _escaped(name: str) -> str:
    """*name* as a part of a JSON pointer (RFC 6901), fit to be shown."""
    shown = name[:100].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return shown.replace("~", "~0").replace("/", "~1")


def _encoded(data: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(data, allow_nan=False, separators=(",", ":"), default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput.at("/data", f"cannot be written as JSON: {error}") from error


def _plain(value: object) -> object:
    match value:
        case uuid.UUID():
            return str(value)
        case datetime():
            return to_rfc3339(as_utc(value))
        case Mapping():
            return dict(value)
        case _:
            raise TypeError(f"{type(value).__name__} is not a JSON type")
