"""Subscriptions."""

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.events import Cursor
from gateway.listing import Listing
from gateway.subscriptions import Interest, Subscription


class SubscriptionStore(Protocol):
    """Each change appends its notice (`gateway.subscription.created` …) to the log in the same transaction."""

    async def create(self, subscription: Subscription, *, at_most: int | None = None) -> Subscription | None:
        """Store it; answers it with its `created_cursor`. None, and nothing is stored, when its creator already has
        *at_most* subscriptions."""

    async def get(self, subscription_id: str) -> Subscription | None: ...

    async def list(
        self, *, libraries: frozenset[str] | None, limit: int, before: str | None
    ) -> Listing[Subscription, str]:
        """Newest first; only those that a key holding *libraries* (None: all) may see."""

    async def change(
        self, subscription_id: str, change: Callable[[Subscription], Subscription], notice: str
    ) -> Subscription | None:
        """Replace it with what *change* makes of it as it is now; *notice* is the event type to append.

        A *change* that answers an equal subscription changes nothing and appends nothing. What *change* raises
        leaves nothing behind. None: there is none.
        """

    async def delete(self, subscription_id: str) -> bool:
        """Remove it; what it owed is settled as cancelled (`subscription_deleted`) soon after."""

    async def interests(self, at: Cursor) -> Sequence[Interest]:
        """Of every subscription the interest in force for events after *at*."""
