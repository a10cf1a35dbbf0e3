"""Give each page of the log to the streams that it concerns, filtered and joined once for all that want the same.

    page ─▶ Leaf (each event encoded once) ─▶ ring of recent leaves
              └─▶ channels, found by library ─▶ Sheet (filtered, joined once) ─▶ every member's socket

A channel is all streams with equal filters. A page costs the channels of its libraries, and no others. The ring lets
a member that was busy, or has just read up to here, go on from its own cursor without asking the log.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from gateway.events import Cursor, LoggedEvent, Page
from gateway.filters import Candidate, Filter, Matcher

RING_BYTES = 16 * 2**20
EVENT_OVERHEAD_BYTES = 512
"""About what an event in memory costs beside its data."""
SHEETS_PER_LEAF = 4
"""A leaf's sheets may take so many times its own size."""


class Encoding(Protocol):
    """How readers of one kind are written to. Equal encodings are one: their readers share frames and channels."""

    def event(self, event: LoggedEvent, cursor: str) -> bytes:
        """The whole frame of an event."""


class Sheet:
    """Frames that are written together. Joined once, in each form that some socket needs."""

    __slots__ = ("_chunk", "_messages", "_text", "frames", "last", "size")

    def __init__(self, frames: Sequence[bytes], last: Cursor = Cursor(0)) -> None:
        self.frames = frames
        self.last = last
        """The place of the last event in it."""
        self.size = sum(map(len, frames))
        self._text: bytes | None = None
        self._chunk: bytes | None = None
        self._messages: bytes | None = None

    @property
    def text(self) -> bytes:
        if self._text is None:
            self._text = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        return self._text

    @property
    def chunk(self) -> bytes:
        """The same as one chunk of HTTP/1.1's chunked coding (RFC 9112, 7.1)."""
        if self._chunk is None:
            self._chunk = b"".join((b"%x\r\n" % self.size, *self.frames, b"\r\n"))
        return self._chunk

    @property
    def messages(self) -> bytes:
        """Each frame as a text message of WebSocket (RFC 6455, 5.2). A server masks none, so all may share them."""
        if self._messages is None:
            self._messages = b"".join(part for frame in self.frames for part in (_message_head(len(frame)), frame))
        return self._messages


def _message_head(size: int) -> bytes:
    """Of a text message that is whole in one frame."""
    if size < 126:
        return bytes((0x81, size))
    if size < 2**16:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


class Leaf:
    """A page with what was made of it: candidates for matching and frames, each made once and when first needed."""

    __slots__ = ("_candidates", "_frames", "_kept_bytes", "_write", "after", "events", "last", "sheets", "size")

    def __init__(self, page: Page, write: Callable[[Cursor], str]) -> None:
        self.after = page.after
        self.last = page.last
        self.events = page.events
        self.size = sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in page.events)
        self._write = write
        self._candidates: list[Candidate] | None = None
        self._frames: dict[Encoding, list[bytes | None]] = {}
        self.sheets: dict[Channel, Sheet | None] = {}
        """Kept for members that go through it, each at its own time; None: nothing in it is for that channel."""
        self._kept_bytes = 0

    @property
    def candidates(self) -> list[Candidate]:
        if self._candidates is None:
            self._candidates = [Candidate(event) for event in self.events]
        return self._candidates

    def frame(self, encoding: Encoding, index: int) -> bytes:
        frames = self._frames.get(encoding)
        if frames is None:
            frames = self._frames[encoding] = [None] * len(self.events)
        if (frame := frames[index]) is None:
            event = self.events[index]
            frame = frames[index] = encoding.event(event, self._write(event.cursor))
        return frame

    def keep(self, channel: "Channel", sheet: Sheet | None) -> None:
        """Remember *sheet* for as long as there is room beside the page itself; the rest is made again when needed."""
        size = EVENT_OVERHEAD_BYTES if sheet is None else sheet.size
        if self._kept_bytes + size > SHEETS_PER_LEAF * self.size:
            self.sheets.clear()
            self._kept_bytes = 0
        self.sheets[channel] = sheet
        self._kept_bytes += size


class Member(Protocol):
    """A stream, as its channel knows it."""

    def offer(self, sheet: Sheet) -> None:
        """Write *sheet* now. Only members that are live are offered anything; one that becomes busy leaves."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What makes streams equal: the filter, the confinement that it runs under, and how they are written to."""

    filter: Filter
    libraries: frozenset[str] | None
    encoding: Encoding


class Channel:
    """All streams with one selection: those that are live, and a count of all that use it."""

    __slots__ = ("encoding", "live", "matcher", "offered_bytes", "selection", "users")

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.encoding = selection.encoding
        self.matcher = Matcher(selection.filter, selection.libraries)
        self.live: set[Member] = set()
        self.users = 0
        self.offered_bytes = 0
        """How much has gone by on this channel since it is there: the measure of how far behind a member is."""

    def sheet_of(self, leaf: Leaf, indices: Iterable[int]) -> Sheet | None:
        """What of the events at *indices* is for this channel."""
        matches, candidates = self.matcher.matches, leaf.candidates
        frames = []
        last = -1
        for index in indices:
            if matches(candidates[index]):
                frames.append(leaf.frame(self.encoding, index))
                last = index
        return Sheet(frames, leaf.events[last].cursor) if frames else None


Delivered = Callable[[Leaf, Sheet, int], None]
"""Is told of each sheet and how many members were offered it."""


class Hub:
    """Fed by the tail. `write` turns a cursor into what clients see."""

    def __init__(
        self,
        write: Callable[[Cursor], str],
        *,
        ring_bytes: int = RING_BYTES,
    ) -> None:
        self._write = write
        self._ring_bytes = ring_bytes
        self._ring: deque[Leaf] = deque()
        self._size = 0
        self._channels: dict[Selection, Channel] = {}
        self._by_library: defaultdict[str, set[Channel]] = defaultdict(set)
        self._of_any_library: set[Channel] = set()
        self._of_gateways_own: set[Channel] = set()
        self.cursor = Cursor(0)
        """Live members have been offered everything up to here."""
        self.delivered: Delivered = lambda _leaf, _sheet, _count: None

    @property
    def channels(self) -> int:
        return len(self._channels)

    @property
    def ring_after(self) -> Cursor:
        """The ring holds everything beyond this place, up to `cursor`."""
        return self._ring[0].after if self._ring else self.cursor

    # --- channels ------------------------------------------------------------------------------------------------

    def enter(self, selection: Selection) -> Channel:
        """The channel of *selection*, with one more user. Each `enter` has its `leave`."""
        channel = self._channels.get(selection)
        if channel is None:
            channel = self._channels[selection] = Channel(selection)
            for place in self._places(channel):
                place.add(channel)
        channel.users += 1
        return channel

    def leave(self, channel: Channel) -> None:
        channel.users -= 1
        if channel.users:
            return
        del self._channels[channel.selection]
        for place in self._places(channel):
            place.discard(channel)
        for library in channel.matcher.libraries or ():
            if not self._by_library[library]:
                del self._by_library[library]

    def _places(self, channel: Channel) -> Iterator[set[Channel]]:
        if channel.selection.filter.names_gateways_own:
            yield self._of_gateways_own
        if channel.matcher.libraries is None:
            yield self._of_any_library
        else:
            for library in channel.matcher.libraries:
                yield self._by_library[library]

    # --- pages ---------------------------------------------------------------------------------------------------

    def feed(self, page: Page) -> None:
        """Keep *page* and offer each channel that it concerns its part of it."""
        self.cursor = page.last
        if not page.events:
            return
        leaf = Leaf(page, self._write)
        self._ring.append(leaf)
        self._size += leaf.size
        while self._size > self._ring_bytes and len(self._ring) > 1:
            self._size -= self._ring.popleft().size
        for channel, indices in self._concerned(page.events):
            if (sheet := channel.sheet_of(leaf, indices)) is None:
                continue
            channel.offered_bytes += sheet.size
            if len(channel.live) < channel.users:
                leaf.keep(channel, sheet)  # those that are behind will want it
            if channel.live:
                self.delivered(leaf, sheet, len(channel.live))
                for member in tuple(channel.live):
                    member.offer(sheet)

    def after(self, cursor: Cursor) -> Iterator[Leaf]:
        """The leaves in the ring that hold anything beyond *cursor*, which has to be at `ring_after` or later."""
        behind = 0
        for leaf in reversed(self._ring):
            if leaf.last <= cursor:
                break
            behind += 1
        return iter(list(islice(self._ring, len(self._ring) - behind, None)))

    def sheet(self, channel: Channel, leaf: Leaf, after: Cursor) -> Sheet | None:
        """What of *leaf* beyond *after* is for *channel*: shared by all members that go through the same leaf."""
        if after > leaf.after:
            return channel.sheet_of(leaf, (i for i, event in enumerate(leaf.events) if event.cursor > after))
        if channel in leaf.sheets:
            return leaf.sheets[channel]
        sheet = channel.sheet_of(leaf, range(len(leaf.events)))
        leaf.keep(channel, sheet)
        return sheet

    def leaf(self, page: Page) -> Leaf:
        """*page* of the past, to be gone through like one of the ring."""
        return Leaf(page, self._write)

    def _concerned(self, events: Sequence[LoggedEvent]) -> Iterator[tuple[Channel, Sequence[int]]]:
        """Each channel that these events could be for, and which of them those are, in order."""
        everything = range(len(events))
        own: list[int] = []
        by_library: defaultdict[str, list[int]] = defaultdict(list)
        for index, event in enumerate(events):
            if event.is_gateways_own:
                own.append(index)
            else:
                by_library[event.library_id].append(index)
        indices: defaultdict[Channel, list[int]] = defaultdict(list)
        for library, places in by_library.items():
            for channel in self._by_library.get(library, ()):
                indices[channel].extend(places)
        if own:
            for channel in self._of_gateways_own - self._of_any_library:
                indices[channel].extend(own)
        # Snapshots: a member that is offered something may fail, and its channel go with it.
        for channel in tuple(self._of_any_library):
            yield channel, everything
        for channel, places in indices.items():
            yield channel, sorted(places)
