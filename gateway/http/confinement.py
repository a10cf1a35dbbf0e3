"""What a confined key may name and see. Invisible things are a 404; in a body they are a 403 that says where."""

from collections.abc import Sequence

from gateway.errors import Fault, Forbidden
from gateway.events import GATEWAY_LIBRARY, LoggedEvent
from gateway.http.auth import Caller

OUTSIDE = "is not among the libraries of this key"


def may_see(caller: Caller, event: LoggedEvent) -> bool:
    """Whether *event* lies within the caller's libraries; one of the gateway's own, if all that it concerns do."""
    if caller.libraries is None:
        return True
    if event.is_gateways_own:
        return event.audience is not None and event.audience <= caller.libraries
    return event.library_id in caller.libraries


def refuse_outside(library_ids: Sequence[str] | None, caller: Caller) -> None:
    """Raises `Forbidden` if *library_ids* of a filter in a body names one outside. `gateway` may be named by all."""
    if caller.libraries is None or library_ids is None:
        return
    allowed = caller.libraries | {GATEWAY_LIBRARY}
    refuse({f"/library_ids/{index}": name for index, name in enumerate(library_ids) if name not in allowed})


def refuse(outside: dict[str, str]) -> None:
    """Raises `Forbidden` naming the places (pointer → library) that lie outside; none: all is well."""
    if outside:
        faults = [Fault(place, f"{name} {OUTSIDE}") for place, name in outside.items()]
        raise Forbidden(f"{faults[0].pointer}: {faults[0].detail}", faults)
