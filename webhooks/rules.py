"""What holds for all lanes of a process, and what they share."""

from dataclasses import dataclass
from datetime import timedelta

from webhooks.budget import Budget
from webhooks.clock import Clock
from webhooks.ownership import Holder
from webhooks.ports import DeliveryStore, Sends
from webhooks.schedule import Rand
from webhooks.settling import Settler


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for all lanes."""

    max_age: timedelta = timedelta(days=5)
    """How long after its first attempt a delivery is given up; time paused or disabled does not count."""
    disable_after: timedelta = timedelta(days=5)
    """For how long every attempt has to fail before an endpoint is disabled."""
    linger: timedelta = timedelta(seconds=30)
    """How long a lane without work keeps what it knows of its endpoint. Longer saves reads, shorter memory."""
    look_again: timedelta = timedelta(seconds=1)
    """How often a lane that may send nothing looks, when it hears of news, whether something was forced."""
    pause: timedelta = timedelta(seconds=2)
    """How long a lane rests when the store cannot be used."""
    send_again: timedelta = timedelta(seconds=60)
    """After how long a delivery is sent again whose settlement the store refuses, alone among others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What all lanes of a process share."""

    store: DeliveryStore
    sender: Sends
    settler: Settler
    budget: Budget
    clock: Clock
    rand: Rand
    rules: Rules
    holder: Holder | None = None
    """None: no other process uses the store."""
