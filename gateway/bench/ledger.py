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
    """`published = delivered + dead + owed + missing`, for each who was to get them; and nothing may be missing."""

    published: int
    """Answered that they are stored, for each who was to get them."""
    delivered: int
    """Of these: those that came, where they were to come."""
    dead: int = 0
    """Given up by the gateway."""
    owed: int = 0
    """Still to be sent when the gateway was ended, by its own books."""
    again: int = 0
    """Webhooks that came more than once, which they may."""
    strange: int = 0
    """That came and were never published, or more than once where they may not."""
    refused: int = 0
    """That the gateway did not take, and said so."""

    @property
    def missing(self) -> int:
        """Less than 0: some that came are said to be dead."""
        return self.published - self.delivered - self.dead - self.owed

    @property
    def balances(self) -> bool:
        return self.missing == 0 and self.strange == 0

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(**{name: value + other.counts[name] for name, value in self.counts.items()})

    @property
    def counts(self) -> Mapping[str, int]:
        names = ("published", "delivered", "dead", "owed", "again", "strange", "refused")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What a gateway's database says of one subscription's deliveries."""

    delivered: int
    dead: int
    owed: int


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


def account_of_books(
    *, events: int, books: Sequence[Books], came: Sequence[Numbers], strange: int, again: int
) -> Ledger:
    """The ledger of receivers of which each was to get *events*, by the gateway's own *books* and by what *came*.

    What came may be owed still: it was on its way when the gateway was ended, and is sent again. What is said to be
    delivered has to have come.
    """
    return Ledger(
        published=events * len(books),
        delivered=sum(min(book.delivered, numbers.bit_count()) for book, numbers in zip(books, came, strict=True)),
        dead=sum(book.dead for book in books),
        owed=sum(book.owed for book in books),
        again=again,
        strange=strange,
    )
