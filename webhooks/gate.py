"""How much one endpoint may be sent now: its limits, and what its receiver has shown of itself."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from webhooks import circuit
from webhooks.circuit import Circuit
from webhooks.deliveries import Attempt, Delivery, Failure, Settlement
from webhooks.endpoints import Endpoint, Health, Status
from webhooks.health import NOBODY_THERE, examine
from webhooks.pace import Pace
from webhooks.schedule import Rand
from webhooks.verdicts import Dead, Reason, Retry, judge


class Gate:
    """An endpoint as its lane knows it.

    How many attempts run at once follows the receiver: each answer allows one more, up to the endpoint's
    `max_in_flight`; each time-out halves it. So one that only times out shrinks to one, and after a pause (a circuit, a
    `Retry-After`) the backlog comes as a ramp, not as a herd.
    """

    def __init__(self, endpoint: Endpoint, health: Health, *, max_age: timedelta, disable_after: timedelta) -> None:
        self.endpoint = endpoint
        self.health = health
        self.pace = Pace(endpoint.max_per_second)
        self._max_age = max_age
        self._disable_after = disable_after
        self._ramp = self._ramp_at_first()

    @property
    def is_active(self) -> bool:
        return self.endpoint.status is Status.ACTIVE

    def change(self, endpoint: Endpoint, health: Health) -> None:
        """Take the endpoint as it was read anew.

        Its health in the store is behind what is known here, unless it was started again or leads elsewhere: then what
        was learnt before says nothing.
        """
        before, self.endpoint = self.endpoint, endpoint
        if before.status is not Status.ACTIVE or before.url != endpoint.url:
            self.health = health
            self._ramp = self._ramp_at_first()
        self.pace.change(endpoint.max_per_second)

    def limit(self, now: datetime) -> int:
        """How many attempts may run at once, but for those that a person forced."""
        if self.opens_at(now) is not None:
            return 0
        if circuit.state(self.health, now) is Circuit.PROBING:
            return 1
        return min(self._ramp, self.endpoint.max_in_flight)

    def opens_at(self, now: datetime) -> datetime | None:
        """Until when nothing may be sent, but what a person forced; None: something may."""
        until = max(filter(None, (self.health.held_until, self.health.circuit_open_until)), default=now)
        return until if until > now else None

    def give_up_at(self, delivery: Delivery) -> datetime | None:
        """When *delivery* becomes too old; None before its first attempt."""
        if delivery.first_attempt_at is None:
            return None
        idle = max(self.endpoint.idle - delivery.idle_before, timedelta(0))
        return delivery.first_attempt_at + self._max_age + idle

    def settle(self, delivery: Delivery, attempt: Attempt, *, now: datetime, rand: Rand) -> Settlement:
        """What *attempt*, which ended *now*, comes to for its delivery and for the endpoint."""
        verdict = judge(
            status_code=attempt.status_code,
            is_forbidden=attempt.failure is Failure.FORBIDDEN,
            retry_after=attempt.retry_after,
            failures=attempt.number - delivery.schedule_start,
            schedule=self.endpoint.retry_schedule,
            now=now,
            give_up_at=self.give_up_at(delivery) or attempt.started_at + self._max_age,
            rand=rand,
        )
        prognosis = examine(self.health, attempt, verdict, now=now, disable_after=self._disable_after)
        self.health = prognosis.health
        if attempt.failure in NOBODY_THERE:
            self._ramp = max(1, self._ramp // 2)
        elif isinstance(verdict, Retry | Dead) and verdict.hold_until is not None:
            self._ramp = 1
        else:
            self._ramp = min(self._ramp + 1, self.endpoint.max_in_flight)
        if prognosis.disable is not None:
            self.endpoint = replace(self.endpoint, status=Status.DISABLED)
        return Settlement(
            delivery=delivery,
            attempt=attempt,
            verdict=verdict,
            health=self.health,
            at=now,
            tell_failing=prognosis.tell_failing,
            disable=prognosis.disable,
        )

    def expire(self, delivery: Delivery, now: datetime) -> Settlement | None:
        """Give *delivery* up without an attempt, if it became too old while it waited."""
        give_up_at = self.give_up_at(delivery)
        if give_up_at is None or now < give_up_at or delivery.forced:
            return None
        return Settlement(delivery=delivery, attempt=None, verdict=Dead(Reason.EXPIRED), health=self.health, at=now)

    def _ramp_at_first(self) -> int:
        """A receiver that could not be reached, or asked for a pause, is not met by a herd after a restart either."""
        is_known_to_be_hurt = self.health.unreachable or self.health.held_until is not None
        return 1 if is_known_to_be_hurt else self.endpoint.max_in_flight
