"""What the HTTP API stands on, in memory: just enough of each port to see what the API makes of its answers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from gateway.errors import Conflict
from gateway.event_types import BUILT_IN, EventTypeRecord, Validation
from gateway.events import Cursor, LoggedEvent
from gateway.keys import Key
from gateway.listing import Listing
from gateway.ports.desk import DeliveryQuery, DeliveryRecord, Outcome, RedeliverQuery, ReplayRecord
from gateway.rollups.rollups import Figures, Overview, Place, Rollup, RollupQuery, Standing
from gateway.subscriptions import Interest, Subscription
from tests.builders import NOON
from webhooks.deliveries import Attempt, DeliveryStatus
from webhooks.endpoints import Health


class Keys:
    def __init__(self) -> None:
        self.kept: dict[str, Key] = {}
        self.lookups = 0
        self.answers = asyncio.Event()
        """Cleared: look-ups wait."""
        self.answers.set()

    async def add(self, key: Key) -> None:
        self.kept[key.id] = key

    async def by_hash(self, hash_: bytes) -> Key | None:
        self.lookups += 1
        await self.answers.wait()
        return next((key for key in self.kept.values() if key.hash == hash_), None)

    async def get(self, key_id: str) -> Key | None:
        return self.kept.get(key_id)

    async def list(self, *, limit: int, before: str | None) -> Listing[Key, str]:
        found = [key for key_id, key in sorted(self.kept.items(), reverse=True) if before is None or key_id < before]
        rows = tuple(found[:limit])
        return Listing(rows, rows[-1].id if len(found) > limit else None)

    async def revoke(self, key_id: str) -> bool:
        return self.kept.pop(key_id, None) is not None

    async def signing_key(self) -> bytes:
        return b"0123456789abcdef0123456789abcdef"


class EventTypes:
    def __init__(self) -> None:
        self.kept: dict[str, EventTypeRecord] = {}

    async def put(self, record: EventTypeRecord) -> EventTypeRecord:
        stored = replace(record, updated_at=NOON, cursor=Cursor(len(self.kept) + 1))
        self.kept[record.type] = stored
        return stored

    async def list(self, *, limit: int, before: str | None) -> Listing[EventTypeRecord, str]:
        names = [name for name in reversed(self.kept) if name not in BUILT_IN] + list(BUILT_IN)
        names = names if before is None else names[names.index(before) + 1 :]
        rows = tuple(self.kept.get(name) or BUILT_IN[name] for name in names[:limit])
        return Listing(rows, rows[-1].type if len(names) > limit else None)

    async def active(self) -> Sequence[EventTypeRecord]:
        return [record for record in self.kept.values() if record.validation is not Validation.OFF]


class Subscriptions:
    def __init__(self) -> None:
        self.kept: dict[str, Subscription] = {}
        self.notices: list[str] = []

    async def create(self, subscription: Subscription, *, at_most: int | None = None) -> Subscription | None:
        if at_most is not None and len(self.kept) >= at_most:
            return None
        self.kept[subscription.id] = subscription
        return subscription

    async def get(self, subscription_id: str) -> Subscription | None:
        return self.kept.get(subscription_id)

    async def list(
        self, *, libraries: frozenset[str] | None, limit: int, before: str | None
    ) -> Listing[Subscription, str]:
        found = [
            each
            for id_, each in sorted(self.kept.items(), reverse=True)
            if (before is None or id_ < before) and _holds(libraries, each.libraries)
        ]
        rows = tuple(found[:limit])
        return Listing(rows, rows[-1].id if len(found) > limit else None)

    async def change(
        self, subscription_id: str, change: Callable[[Subscription], Subscription], notice: str
    ) -> Subscription | None:
        if (current := self.kept.get(subscription_id)) is None:
            return None
        changed = change(current)
        if changed != current:
            self.kept[subscription_id] = changed
            self.notices.append(notice)
        return changed

    async def delete(self, subscription_id: str) -> bool:
        return self.kept.pop(subscription_id, None) is not None

    async def interests(self, at: Cursor) -> Sequence[Interest]:
        return []


class Desk:
    def __init__(self) -> None:
        self.kept: dict[str, DeliveryRecord] = {}
        self.made: dict[str, list[Attempt]] = {}
        self.replays: dict[str, ReplayRecord] = {}
        self.redelivered: list[RedeliverQuery] = []
        self.queries: list[DeliveryQuery] = []
        self.became_of: dict[str, list[Outcome]] = {}
        """By event, newest subscription first."""

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        return self.kept.get(delivery_id)

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        return self.made.get(delivery_id, [])

    async def list(self, query: DeliveryQuery) -> Listing[DeliveryRecord, str]:
        self.queries.append(query)
        found = [
            each
            for id_, each in sorted(self.kept.items(), reverse=True)
            if (query.resume is None or id_ < query.resume)
            and (query.status is None or each.status == query.status)
            and _holds(query.libraries, each.libraries)
        ]
        rows = tuple(found[: query.limit])
        return Listing(rows, rows[-1].id if len(found) > query.limit else None)

    async def outcomes(
        self, event: LoggedEvent, *, libraries: frozenset[str] | None, limit: int, before: str | None
    ) -> Listing[Outcome, str]:
        found = [
            outcome
            for outcome in self.became_of.get(event.id, ())
            if (before is None or outcome.subscription_id < before) and _holds(libraries, outcome.interest.libraries)
        ]
        rows = tuple(found[:limit])
        return Listing(rows, rows[-1].subscription_id if len(found) > limit else None)

    async def retry(self, delivery_id: str, *, now: datetime) -> DeliveryRecord | None:
        record = self.kept[delivery_id]
        if record.status is DeliveryStatus.DELIVERED:
            raise Conflict("it was delivered")
        self.kept[delivery_id] = replace(record, status=DeliveryStatus.PENDING, due_at=now)
        return self.kept[delivery_id]

    async def cancel(self, delivery_id: str, *, now: datetime) -> DeliveryRecord | None:
        record = self.kept[delivery_id]
        if record.status is not DeliveryStatus.PENDING:
            raise Conflict("it is settled")
        self.kept[delivery_id] = replace(record, status=DeliveryStatus.CANCELLED, settled_at=now, due_at=None)
        return self.kept[delivery_id]

    async def forget(self, delivery_id: str) -> bool:
        if self.kept[delivery_id].status is not DeliveryStatus.DEAD:
            return False
        del self.kept[delivery_id]
        return True

    async def count_redeliverable(self, query: RedeliverQuery) -> int:
        return len(self._dead(query))

    async def redeliver(self, query: RedeliverQuery, *, now: datetime) -> ReplayRecord:
        self.redelivered.append(query)
        matched = self._dead(query)
        replay = ReplayRecord(
            id=f"rpl_{len(self.replays)}",
            kind="redeliver",
            subscription_id=query.subscription_id,
            libraries=query.libraries,
            created_at=now,
            matched=len(matched),
            created=len(matched),
            by_status={"pending": len(matched)},
        )
        self.replays[replay.id] = replay
        return replay

    async def replay(self, replay_id: str) -> ReplayRecord | None:
        return self.replays.get(replay_id)

    async def stop_replay(self, replay_id: str) -> frozenset[str] | None:
        replay = self.replays.get(replay_id)
        if replay is None:
            return None
        self.replays[replay_id] = replace(replay, status="stopped")
        return frozenset({replay.subscription_id or "sub_1"})

    def _dead(self, query: RedeliverQuery) -> tuple[DeliveryRecord, ...]:
        return tuple(
            each
            for each in self.kept.values()
            if each.status is DeliveryStatus.DEAD
            and (query.ids is None or each.id in query.ids)
            and (query.subscription_id is None or each.subscription_id == query.subscription_id)
            and _holds(query.libraries, each.libraries)
        )


class CannedRollups:
    """Answers what a test has put here, in pages."""

    def __init__(self) -> None:
        self.kept: list[Rollup] = []
        self.stands = Standing(
            counts={status.value: 0 for status in DeliveryStatus},
            recent=Figures(),
            oldest_due_at=None,
            health=Health(),
        )
        self.queries: list[RollupQuery] = []

    async def list(self, query: RollupQuery) -> Listing[Rollup, Place]:
        self.queries.append(query)
        places = [Place(start=each.start, group=each.group or "") for each in self.kept]
        begin = 0 if query.resume is None or query.resume not in places else places.index(query.resume) + 1
        page = tuple(self.kept[begin : begin + query.limit])
        more = places[begin + len(page) - 1] if page and begin + len(page) < len(self.kept) else None
        return Listing(page, more)

    async def standing(self, subscription_id: str, *, since: datetime) -> Standing:
        return self.stands

    async def overview(self) -> Overview:
        return Overview(counts=self.stands.counts, open_circuits=0, oldest_due_at=None)


def _holds(libraries: frozenset[str] | None, needed: frozenset[str] | None) -> bool:
    return libraries is None or (needed is not None and needed <= libraries)
