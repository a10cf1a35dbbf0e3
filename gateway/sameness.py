"""Whether an event that is published again under its id is the same event."""

from gateway.events import Draft, LoggedEvent


def same_content(draft: Draft, logged: LoggedEvent) -> bool:
    return (
        draft.type == logged.type
        and draft.library_id == logged.library_id
        and (draft.timestamp is None or draft.timestamp == logged.timestamp)
        and draft.data == logged.data
    )
