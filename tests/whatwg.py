"""A parser of event streams, written from the text of the WHATWG's HTML standard (section 9.2.6) and nothing else.

It knows nothing of the code it tests, and parses whole streams: "interpreting an event stream", paragraph by paragraph.
"""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A MessageEvent, as page code would see it."""

    type: str
    data: str
    last_event_id: str


@dataclass(slots=True)
class Source:
    """An EventSource, as far as its stream changes it."""

    events: list[Dispatched] = field(default_factory=list)
    last_event_id: str = ""
    reconnection_ms: int | None = None
    comments: list[str] = field(default_factory=list)
    data_buffer: list[str] = field(default_factory=list)
    """In pieces: a string that grows a million times takes a while."""
    event_type_buffer: str = ""
    last_event_id_buffer: str = ""

    def process(self, name: str, value: str) -> None:
        """ "Process the field"."""
        if name == "event":
            self.event_type_buffer = value
        elif name == "data":
            self.data_buffer += (value, "\n")
        elif name == "id":
            if "\0" not in value:
                self.last_event_id_buffer = value
        elif name == "retry" and value and all("0" <= digit <= "9" for digit in value):
            self.reconnection_ms = int(value)

    def dispatch(self) -> None:
        """ "Dispatch the event"."""
        self.last_event_id = self.last_event_id_buffer
        if self.data_buffer:
            data = "".join(self.data_buffer).removesuffix("\n")
            self.events.append(Dispatched(self.event_type_buffer or "message", data, self.last_event_id))
        self.data_buffer, self.event_type_buffer = [], ""


def interpret(stream: bytes) -> Source:
    """What an EventSource makes of *stream*. An incomplete frame at its end is discarded, as the standard says."""
    # "Streams must be decoded using the UTF-8 decode algorithm", which strips one leading BOM and replaces bad bytes.
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    source = Source()
    # end-of-line = ( cr lf / cr / lf ); what follows the last of them is no line yet.
    *lines, _ = re.split(r"\r\n|\r|\n", text)
    for line in lines:
        if line == "":
            source.dispatch()
        elif line.startswith(":"):
            source.comments.append(line[1:])
        else:
            name, _, value = line.partition(":")
            source.process(name, value.removeprefix(" "))
    return source
