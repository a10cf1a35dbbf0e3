"""The hub gives each page to the channels it concerns, made once for all members, and keeps what is recent."""

from dataclasses import dataclass, field

import pytest
from websockets.frames import Frame, Opcode

from gateway.events import Cursor, LoggedEvent, Page
from gateway.filters import Filter
from gateway.streams.hub import Channel, Hub, Leaf, Selection, Sheet
from tests.builders import a_page, an_event


@dataclass(frozen=True)
class Counted:
    """An encoding that says what it encoded."""

    name: str = "counted"
    encoded: list[int] = field(default_factory=list, compare=False)

    def event(self, event: LoggedEvent, cursor: str) -> bytes:
        self.encoded.append(event.cursor)
        return f"[{cursor} {event.library_id} {event.type}]".encode()


class Listener:
    def __init__(self) -> None:
        self.sheets: list[Sheet] = []

    def offer(self, sheet: Sheet) -> None:
        self.sheets.append(sheet)

    @property
    def text(self) -> str:
        return b"".join(sheet.text for sheet in self.sheets).decode()


def a_hub(**kwargs: int) -> Hub:
    return Hub(lambda cursor: f"e-{cursor}", **kwargs)


ENCODING = Counted()


def join(
    hub: Hub,
    *,
    libraries: frozenset[str] | None = None,
    encoding: Counted = ENCODING,
    library_ids: list[str] | None = None,
    types: list[str] | None = None,
) -> tuple[Channel, Listener]:
    channel = hub.enter(Selection(Filter.parse(library_ids=library_ids, types=types), libraries, encoding))
    channel.live.add(listener := Listener())
    return channel, listener


def matched(hub: Hub, channel: Channel, leaf: Leaf, after: int) -> int:
    sheet = hub.sheet(channel, leaf, Cursor(after))
    return 0 if sheet is None else len(sheet.frames)


def test_a_member_is_offered_what_its_filter_lets_through_in_order() -> None:
    hub = a_hub()
    _, everything = join(hub)
    _, books = join(hub, library_ids=["books", "maps"])
    _, added = join(hub, types=["document.*"])
    hub.feed(
        a_page(
            [
                an_event(cursor=1, library_id="maps", type="search.performed"),
                an_event(cursor=2, library_id="films"),
                an_event(cursor=3, library_id="books"),
                an_event(cursor=4, library_id="maps"),
            ]
        )
    )
    assert [event.split()[0] for event in everything.text.split("[")[1:]] == ["e-1", "e-2", "e-3", "e-4"]
    assert [event.split()[0] for event in books.text.split("[")[1:]] == ["e-1", "e-3", "e-4"]
    assert [event.split()[0] for event in added.text.split("[")[1:]] == ["e-2", "e-3", "e-4"]
    assert hub.cursor == 4


def test_equal_filters_share_a_channel_and_one_sheet() -> None:
    hub, encoding = a_hub(), Counted()
    first, one = join(hub, types=["a", "b"], encoding=encoding)
    second, other = join(hub, types=["b", "a"], encoding=encoding)
    assert first is second
    hub.feed(a_page([an_event(cursor=1, type="a")]))
    assert one.sheets[0] is other.sheets[0]


def test_each_event_is_encoded_once_for_all_channels() -> None:
    hub, encoding = a_hub(), Counted()
    for types in (["a"], ["*"], ["a", "b"]):
        join(hub, types=types, encoding=encoding)
    hub.feed(a_page([an_event(cursor=1, type="a"), an_event(cursor=2, type="b")]))
    assert sorted(encoding.encoded) == [1, 2]


def test_an_event_that_nobody_wants_is_not_encoded() -> None:
    hub, encoding = a_hub(), Counted()
    join(hub, library_ids=["films"], encoding=encoding)
    hub.feed(a_page([an_event(cursor=1, library_id="books")]))
    assert encoding.encoded == []


def test_kinds_of_readers_have_their_own_frames() -> None:
    hub = a_hub()
    one, _ = join(hub, encoding=Counted("one"))
    other, _ = join(hub, encoding=Counted("other"))
    assert one is not other


def test_a_page_costs_only_the_channels_of_its_libraries() -> None:
    hub = a_hub()
    channels = [join(hub, library_ids=[f"library-{number}"])[0] for number in range(1_000)]
    concerned = list(hub._concerned([an_event(cursor=1, library_id="library-7")]))
    assert concerned == [(channels[7], [0])]


def test_confinement_is_part_of_what_a_channel_is() -> None:
    hub = a_hub()
    _, confined = join(hub, libraries=frozenset({"mine"}))
    _, asking = join(hub, libraries=frozenset({"mine"}), library_ids=["mine", "other"])
    hub.feed(a_page([an_event(cursor=1, library_id="other"), an_event(cursor=2, library_id="mine")]))
    assert confined.text == asking.text == "[e-2 mine document.added]"


def test_the_gateways_own_events_go_to_channels_that_name_them_once() -> None:
    hub = a_hub()
    _, unaware = join(hub)
    _, both = join(hub, types=["*", "gateway.*"])
    _, insider = join(hub, types=["gateway.*"], libraries=frozenset({"gateway", "mine"}))
    own = an_event(cursor=1, type="gateway.ping", library_id="gateway", audience=frozenset({"mine"}))
    hub.feed(a_page([own]))
    assert unaware.text == ""
    assert both.text == insider.text == "[e-1 gateway gateway.ping]"


def test_a_channel_goes_with_its_last_user() -> None:
    hub = a_hub()
    channel, _ = join(hub, library_ids=["books"])
    hub.enter(channel.selection)
    hub.leave(channel)
    assert hub.channels == 1
    hub.leave(channel)
    assert hub.channels == 0
    assert list(hub._concerned([an_event(cursor=1, library_id="books")])) == []
    assert not hub._by_library


def test_a_member_that_leaves_in_the_middle_of_a_page_harms_no_other() -> None:
    hub = a_hub()
    channel, listener = join(hub)

    class Leaver(Listener):
        def offer(self, sheet: Sheet) -> None:
            super().offer(sheet)
            channel.live.discard(self)
            hub.leave(channel)

    channel.live.add(Leaver())
    hub.enter(channel.selection)
    hub.feed(a_page([an_event(cursor=1)]))
    hub.feed(a_page([an_event(cursor=2)]))
    assert listener.text.count("[") == 2


def test_the_ring_holds_what_is_recent_and_says_from_where() -> None:
    hub = a_hub(ring_bytes=5_000)
    hub.feed(Page(after=Cursor(10), events=()))
    assert (hub.ring_after, hub.cursor) == (10, 10)
    for cursor in range(11, 31):
        hub.feed(a_page([an_event(cursor=cursor, data=b"x" * 500)]))
    assert hub.cursor == 30
    assert hub.ring_after == 30 - 4
    assert [leaf.last for leaf in hub.after(Cursor(28))] == [29, 30]
    assert list(hub.after(Cursor(30))) == []


def test_a_page_larger_than_the_ring_is_still_the_ring() -> None:
    hub = a_hub(ring_bytes=10)
    hub.feed(a_page([an_event(cursor=1)]))
    assert hub.ring_after == 0


def test_a_leaf_can_be_entered_in_its_middle() -> None:
    hub = a_hub()
    channel, _ = join(hub)
    hub.feed(a_page([an_event(cursor=1), an_event(cursor=2), an_event(cursor=3)]))
    [leaf] = hub.after(Cursor(1))
    assert matched(hub, channel, leaf, after=1) == 2
    assert matched(hub, channel, leaf, after=0) == 3


def test_members_that_come_later_through_a_leaf_share_its_sheet() -> None:
    hub, encoding = a_hub(), Counted()
    channel, _ = join(hub, encoding=encoding)
    leaf = hub.leaf(a_page([an_event(cursor=1), an_event(cursor=2)]))
    assert hub.sheet(channel, leaf, Cursor(0)) is hub.sheet(channel, leaf, Cursor(0))
    assert encoding.encoded == [1, 2]


def test_the_sheets_that_a_leaf_keeps_are_bounded() -> None:
    hub = a_hub()
    leaf = hub.leaf(a_page([an_event(cursor=1, data=b"x" * 1_000)]))

    @dataclass(frozen=True)
    class Long(Counted):
        def event(self, event: LoggedEvent, cursor: str) -> bytes:
            return b"x" * 1_000

    for number in range(100):
        hub.sheet(hub.enter(Selection(Filter(), None, Long(str(number)))), leaf, Cursor(0))
    assert len(leaf.sheets) <= 10


@pytest.mark.parametrize("frames", [[b"one"], [b"one", b"two", b"x" * 100]])
def test_a_sheet_is_written_bare_or_as_one_chunk(frames: list[bytes]) -> None:
    sheet = Sheet(frames)
    text = b"".join(frames)
    assert sheet.text == text
    assert sheet.chunk == b"%x\r\n%b\r\n" % (len(text), text)


@pytest.mark.parametrize("size", [1, 125, 126, 127, 2**16 - 1, 2**16])
def test_each_frame_of_a_sheet_can_be_a_message_of_a_websocket(size: int) -> None:
    frames = [b"x" * size, b"{}"]
    whole = [Frame(Opcode.TEXT, each).serialize(mask=False) for each in frames]
    assert Sheet(frames).messages == b"".join(whole)


def test_what_is_delivered_is_counted() -> None:
    hub, counted = a_hub(), []
    hub.delivered = lambda leaf, sheet, members: counted.append((leaf.last, len(sheet.frames), members))
    join(hub)
    join(hub)
    join(hub, types=["b"])
    hub.feed(a_page([an_event(cursor=1, type="a"), an_event(cursor=2, type="a")]))
    assert counted == [(2, 2, 2)]
