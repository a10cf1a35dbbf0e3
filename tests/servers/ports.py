"""Ports for servers that keep theirs over restarts."""

import random
import socket

PORTS = range(15_000, 32_000)
"""Below those that the kernel gives to clients: one of these could take a server's port while it is down."""


def free_port() -> int:
    """A port that nobody listens on now."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
