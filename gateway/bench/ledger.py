"""What was promised and what came of it. A measurement whose ledger does not balance says nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Numbers = int
"""A set of event numbers, as the bits of one integer: it goes from process to process as hexadecimal text."""


def numbers_of(flags: Sequence[int]) -> Numbers:
    """The places in *flags* that are not 0."""
    return int("0" + "".join("1" if flag else "0" for flag in reversed(flags)), 2)


def numbers_in(chosen: Iterable[int], below: int) -> Numbers:
    """*chosen*, leaving out what does not lie in 0 … *below*."""
    flags = bytearray(below)
    for number in chosen:
        if 0 <= number < below:
            flags[number] = 1
    return numbers_of(flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """`published = delivered + dead + missing`, for each who was to get them; and nothing may be missing."""

    published: int
    """Answered that they are stored, for each who was to get them."""
    delivered: int
    """Of these: those that came, where they were to come."""
    dead: int = 0
    """Given up by the gateway."""
    again: int = 0
    """Webhooks that came more than once, which they may."""
    strange: int = 0
    """That came and were never published, or more than once where they may not."""
    refused: int = 0
    """That the gateway did not take, and said so."""

    @property
    def missing(self) -> int:
        """Less than 0: some that came are said to be dead."""
        return self.published - self.delivered - self.dead

    @property
    def balances(self) -> bool:
        return self.missing == 0 and self.strange == 0

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(**{name: value + other.counts[name] for name, value in self.counts.items()})

    @property
    def counts(self) -> Mapping[str, int]:
        return {name: getattr(self, name) for name in ("published", "delivered", "dead", "again", "strange", "refused")}


def account(*, accepted: Numbers, refused: Numbers, came: Numbers, strange: int = 0) -> Ledger:
    """The ledger of one reader, receiver or log. What was refused may be there nevertheless, and counts as nothing."""
    return Ledger(
        published=accepted.bit_count(),
        delivered=(accepted & came).bit_count(),
        strange=strange + (came & ~(accepted | refused)).bit_count(),
        refused=refused.bit_count(),
    )


def account_by_count(*, accepted: int, refused: int, counts: Sequence[int]) -> Ledger:
    """The ledger of streams of which it is only known how many events each was sent."""
    return Ledger(
        published=accepted * len(counts),
        delivered=sum(min(count, accepted) for count in counts),
        strange=sum(max(0, count - accepted - refused) for count in counts),
        refused=refused * len(counts),
    )
