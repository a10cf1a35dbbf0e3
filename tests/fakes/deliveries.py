"""A delivery store in memory, verified by tests/contracts/delivery_store.py, and a receiver that a test scripts."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from tests.fakes.clock import START, FakeClock
from webhooks.deliveries import Attempt, Delivery, DeliveryStatus, Failure, Settlement
from webhooks.endpoints import Endpoint, Health, Status
from webhooks.ports import Due
from webhooks.schedule import RETRY_SCHEDULE
from webhooks.verdicts import Dead, Delivered, Retry


def an_endpoint(endpoint_id: str = "sub_1", **changes: object) -> Endpoint:
    given: dict[str, object] = {"url": "https://example.com/hooks", "secrets": (), "retry_schedule": RETRY_SCHEDULE}
    return Endpoint(id=endpoint_id, **(given | changes))  # type: ignore[arg-type]  # the tests name real fields


def a_delivery(number: int = 1, endpoint_id: str = "sub_1", **changes: object) -> Delivery:
    event_id = f"evt_{number}"
    library_id = str(changes.get("library_id", "lib"))
    body = f'{{"id":"{event_id}","type":"document.added","library_id":"{library_id}","data":{{"n":{number}}}}}'
    given: dict[str, object] = {
        "id": f"dlv_{endpoint_id}_{number:06}",
        "endpoint_id": endpoint_id,
        "event_id": event_id,
        "event_type": "document.added",
        "library_id": library_id,
        "cursor": number,
        "body": body.encode(),
        "event_time": START,
        "created_at": START,
        "due_at": START,
    }
    return Delivery(**(given | changes))  # type: ignore[arg-type]  # the tests name real fields


@dataclass
class Row:
    delivery: Delivery
    status: DeliveryStatus = DeliveryStatus.PENDING
    reason: str | None = None
    attempts: dict[int, Attempt] = field(default_factory=dict)


class MemoryDeliveryStore:
    """`webhooks.ports.DeliveryStore`. What `fail_reads` and `fail_settling` are set to is raised."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.healths: dict[str, Health] = {}
        self.rows: dict[str, Row] = {}
        self.notices: list[tuple[str, str]] = []
        self.reads = 0
        self.most_read = 0
        self.settles = 0
        self.fail_reads: Exception | None = None
        self.fail_settling: Exception | None = None
        self.refused: set[str] = set()
        """Ids of deliveries whose settlement it chokes on."""

    def add(self, *things: Endpoint | Delivery) -> None:
        for thing in things:
            if isinstance(thing, Endpoint):
                self.endpoints[thing.id] = thing
                self.healths.setdefault(thing.id, Health())
            else:
                self.rows[thing.id] = Row(thing)

    def status(self, delivery_id: str) -> DeliveryStatus:
        return self.rows[delivery_id].status

    def pending(self, endpoint_id: str) -> list[Delivery]:
        return [
            row.delivery
            for row in self.rows.values()
            if row.status is DeliveryStatus.PENDING and row.delivery.endpoint_id == endpoint_id
        ]

    async def endpoint(self, endpoint_id: str) -> tuple[Endpoint, Health] | None:
        self._check()
        endpoint = self.endpoints.get(endpoint_id)
        return None if endpoint is None else (endpoint, self.healths[endpoint_id])

    async def due(self, endpoint_id: str, *, now: datetime, limit: int, replayed: bool = False) -> Due:
        self._check()
        self.reads += 1
        line = self._line(endpoint_id, replayed)
        pending = sorted(line, key=lambda one: (not one.forced, one.due_at, one.cursor, one.id))
        ready = [one for one in pending if one.due_at <= now][:limit]
        self.most_read = max(self.most_read, len(ready))
        taken = {one.id for one in ready}
        due = Due(
            deliveries=tuple(ready),
            next_due_at=min((one.due_at for one in pending if one.id not in taken), default=None),
        )
        await asyncio.sleep(0)  # as with a database, the answer is a little older than the moment it arrives
        return due

    async def queue(
        self, endpoint_id: str, *, limit: int, per_library: int = 1, replayed: bool = False
    ) -> tuple[Delivery, ...]:
        self._check()
        self.reads += 1
        libraries: dict[str, list[Delivery]] = {}
        for one in sorted(self._line(endpoint_id, replayed), key=lambda one: (one.cursor, one.id)):
            libraries.setdefault(one.library_id, []).append(one)
        heads = sorted(libraries.values(), key=lambda rows: (rows[0].due_at, rows[0].cursor))
        return tuple(one for rows in heads for one in rows[:per_library])[:limit]

    async def lanes(self) -> Mapping[str, datetime]:
        self._check()
        found: dict[str, datetime] = {}
        for endpoint in self.endpoints.values():
            pending = self.pending(endpoint.id)
            if endpoint.status is Status.ACTIVE and pending:
                found[endpoint.id] = min(one.due_at for one in pending)
        return found

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        self.settles += 1
        if self.fail_settling is not None:
            raise self.fail_settling
        if any(settlement.delivery.id in self.refused for settlement in settlements):
            raise ValueError("a row that cannot be stored")
        for settlement in settlements:
            self._settle_one(settlement)

    def _settle_one(self, settlement: Settlement) -> None:
        delivery, attempt = settlement.delivery, settlement.attempt
        idle = timedelta(0)
        if (endpoint := self.endpoints.get(delivery.endpoint_id)) is not None:
            idle = endpoint.idle
            self._examine(endpoint, settlement)
        if (row := self.rows.get(delivery.id)) is None:
            return
        if attempt is not None:
            row.attempts[attempt.number] = attempt
            row.delivery = replace(row.delivery, attempt_count=max(row.delivery.attempt_count, attempt.number))
        if row.status is not DeliveryStatus.PENDING:
            return
        if attempt is not None and row.delivery.first_attempt_at is None:
            row.delivery = replace(row.delivery, first_attempt_at=attempt.started_at, idle_before=idle)
        match settlement.verdict:
            case Delivered():
                row.status = DeliveryStatus.DELIVERED
            case Dead(reason=reason):
                row.status, row.reason = DeliveryStatus.DEAD, reason.value
            case Retry(at=at):
                row.delivery = replace(row.delivery, due_at=at, forced=False)

    def _examine(self, endpoint: Endpoint, settlement: Settlement) -> None:
        self.healths[endpoint.id] = settlement.health
        if settlement.tell_failing:
            self.notices.append(("failing", endpoint.id))
        if settlement.disable is not None and endpoint.status is Status.ACTIVE:
            self.endpoints[endpoint.id] = replace(endpoint, status=Status.DISABLED)
            self.notices.append(("disabled", settlement.disable))

    def _line(self, endpoint_id: str, replayed: bool) -> list[Delivery]:  # noqa: FBT001 - it is the value to look for
        return [one for one in self.pending(endpoint_id) if one.replayed is replayed]

    def _check(self) -> None:
        if self.fail_reads is not None:
            raise self.fail_reads


Answer = int | Failure | tuple[int, str]
"""A status, a failure, or a status with its `Retry-After`."""


class ScriptedSender:
    """`webhooks.ports.Sends`: answers as its script says, after `takes_seconds` of virtual time.

    Endpoints in `silent` never answer: their attempts end as time-outs.
    """

    def __init__(self, clock: FakeClock, answer: Callable[[Delivery], Answer] = lambda _: 204) -> None:
        self._clock = clock
        self.answer = answer
        self.takes_seconds = 0.0
        self.silent: set[str] = set()
        self.sent: list[tuple[datetime, Delivery]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.broken_off = 0

    @property
    def events(self) -> list[str]:
        return [delivery.event_id for _, delivery in self.sent]

    def seconds(self) -> list[float]:
        """When each attempt began, in seconds since the start."""
        return [(moment - START).total_seconds() for moment, _ in self.sent]

    async def send(self, delivery: Delivery, endpoint: Endpoint) -> Attempt:
        started_at = self._clock.now()
        self.sent.append((started_at, delivery))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer: Answer = Failure.TIMEOUT
            if delivery.endpoint_id in self.silent:
                await self._clock.sleep(endpoint.timeout_seconds)
            else:
                if self.takes_seconds:
                    await self._clock.sleep(self.takes_seconds)
                else:
                    await asyncio.sleep(0)
                answer = self.answer(delivery)
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        finally:
            self.in_flight -= 1
        return an_attempt(
            answer, number=delivery.attempt_count + 1, started_at=started_at, duration=self._clock.now() - started_at
        )


def an_attempt(
    answer: Answer = 204,
    *,
    number: int = 1,
    started_at: datetime = START,
    duration: timedelta = timedelta(milliseconds=5),
) -> Attempt:
    if isinstance(answer, Failure):
        return Attempt(number=number, started_at=started_at, duration=duration, error=answer.value, failure=answer)
    status, retry_after = answer if isinstance(answer, tuple) else (answer, None)
    return Attempt(number=number, started_at=started_at, duration=duration, status_code=status, retry_after=retry_after)
