"""Arrw Gateway in a program of your own: one bus, events, and functions that are called with them."""

from gateway.events import Event, EventType
from gateway.inprocess.eventbus import EventBus, get_event_bus
from gateway.version import __version__

__all__ = ["Event", "EventBus", "EventType", "__version__", "get_event_bus"]
