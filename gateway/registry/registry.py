"""Hold published data to the schema of its type, where its type has one and somebody wants that.

    PUT /v1/event-types/{type} ─▶ table + notice ─▶ log ─▶ tail ─▶ Registry, in every process ◀── publishers

With nothing to check it costs one look at an empty table.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import structlog

from gateway.errors import Fault, InvalidInput
from gateway.event_types import EventTypeRecord, Validation
from gateway.events import GATEWAY_PREFIX, Cursor, Draft, LoggedEvent, Page
from gateway.ports.log import Misfit, Published
from gateway.registry.schemas import Schema, compile_schema
from gateway.statistics import Publishing, Share

UPDATED: Final = f"{GATEWAY_PREFIX}event_type.updated"
WARN_EVERY_SECONDS: Final = 60.0
"""Of one type, so many seconds apart."""
TURN_BYTES: Final = 256 * 2**10
"""After so much data the loop gets a turn."""
MAX_FAULTS: Final = 100

_logger = structlog.get_logger(__name__)


class EventTypes(Protocol):
    """As much of the `EventTypeStore` as is needed here."""

    async def active(self) -> Sequence[EventTypeRecord]:
        """All whose data is to be checked."""


@dataclass(frozen=True, slots=True)
class _Rule:
    schema: Schema
    enforced: bool


class Registry:
    """What is checked, by type. `feed` belongs on the tail; `load` it once that follows the log, before any event."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._rules: dict[str, _Rule] = {}
        self._changed_at: dict[str, Cursor] = {}
        self._warned_at: dict[str, float] = {}
        self._warnings = self._refused = 0

    async def load(self, store: EventTypes) -> None:
        for record in await store.active():
            self.apply(record)

    def apply(self, record: EventTypeRecord) -> None:
        """Check by *record* from now on, unless a later change of its type is known."""
        if record.cursor < self._changed_at.get(record.type, 0):
            return
        self._changed_at[record.type] = record.cursor
        self._rules.pop(record.type, None)
        if record.validation is Validation.OFF or record.schema is None:
            return
        try:
            schema = compile_schema(record.schema)
        except InvalidInput as error:  # it was taken once: by another version, for which it was a schema
            _logger.error("event_type.not_checked", type=record.type, error=error.detail)  # noqa: TRY400 - no fault of ours
            return
        self._rules[record.type] = _Rule(schema, enforced=record.validation is Validation.ENFORCE)

    def feed(self, page: Page) -> None:
        for event in page.events:
            if event.type == UPDATED:
                self.apply(_record_of(event))

    async def check(self, drafts: Sequence[Draft]) -> Misfit | None:
        """What of *drafts* is to be refused, if anything is."""
        if not self._rules:
            return None
        faults: list[tuple[int, Fault]] = []
        size = 0
        for index, draft in enumerate(drafts):
            if (rule := self._rules.get(draft.type)) is None:
                continue
            if size > TURN_BYTES:
                size = 0
                await asyncio.sleep(0)
            size += len(draft.data)
            if not (found := rule.schema.misfits(draft.data)):
                continue
            if rule.enforced:
                self._refused += 1
                faults += [(index, Fault(f"/data{fault.pointer}", fault.detail)) for fault in found]
            else:
                self._warn(draft, found[0])
            if len(faults) >= MAX_FAULTS:
                break
        return Misfit(tuple(faults[:MAX_FAULTS])) if faults else None

    def share(self) -> Share:
        return Share(extras={"schema_warnings": self._warnings, "schema_refusals": self._refused})

    def _warn(self, draft: Draft, fault: Fault) -> None:
        self._warnings += 1
        now = self._monotonic()
        if now - self._warned_at.get(draft.type, -WARN_EVERY_SECONDS) >= WARN_EVERY_SECONDS:
            self._warned_at[str(draft.type)] = now
            _logger.warning(
                "event.does_not_fit",
                type=str(draft.type),
                event_id=draft.id,
                place=f"/data{fault.pointer}",
                why=fault.detail,
            )


class CheckedPublisher:
    """Publishes what fits. Everything in a process that publishes goes through the same one."""

    def __init__(self, publisher: Publishing, registry: Registry) -> None:
        self._publisher = publisher
        self._registry = registry

    @property
    def queue_size(self) -> int:
        return self._publisher.queue_size

    async def publish(self, drafts: Sequence[Draft]) -> Published:
        return await self._registry.check(drafts) or await self._publisher.publish(drafts)


class _Notice(msgspec.Struct):
    type: str
    description: str
    schema: dict[str, Any] | bool | None
    validation: Validation


def _record_of(event: LoggedEvent) -> EventTypeRecord:
    notice = msgspec.json.decode(event.data, type=_Notice)
    return EventTypeRecord(
        type=notice.type,
        description=notice.description,
        schema=notice.schema,
        validation=notice.validation,
        updated_at=event.accepted_at,
        cursor=event.cursor,
    )
