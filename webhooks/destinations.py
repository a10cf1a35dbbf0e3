"""Where deliveries may go: the rules for a URL, and the addresses that are never connected to.

A URL is checked when it is given (`check_url`: its form, and literal addresses). Names are not resolved then: what
counts is the address that is about to be connected to, each time, which `Guard.permits` is asked about.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
import idna

from webhooks.errors import BadDestination, ForbiddenDestination

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL = 2_048

_FORBIDDEN_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; 0.0.0.0 reaches the machine itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and the metadata service of one cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # the host agent of one cloud, on a public address
        "169.254.0.0/16",  # link-local, with the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments (`ipaddress` holds 192.0.0.8 to be global)
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, with broadcast
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All global unicast addresses. What lies outside is loopback, link-local, unique local, site-local, multicast, NAT64,
IPv4-mapped, IPv4-compatible, or not assigned."""
_FORBIDDEN_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
)
_IPV4_INSIDE = tuple(
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (
        ("::ffff:0:0/96", 0),  # IPv4-mapped
        ("::ffff:0:0:0/96", 0),  # IPv4-translated
        ("64:ff9b::/96", 0),  # NAT64
        ("64:ff9b:1::/48", 0),  # NAT64 with a prefix of one's own, commonly a /96
        ("2002::/16", 80),  # 6to4
    )
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}

_NAME = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?", re.ASCII
)
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)
_URL = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]*\]|[^:\[\]%]+)(?::([0-9]{0,5}))?")
_UNFIT = re.compile(r"[\x00-\x20\x7f\\]")
_LOOPBACKS = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """CIDRs, or single addresses, as `GATEWAY_DESTINATION_ALLOW` lists them.

    Raises:
        ValueError: one of them is neither.
    """
    return tuple(ipaddress.ip_network(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Guard:
    """Which addresses may be connected to: those of the public internet, and the networks that were opened."""

    allow: tuple[Network, ...] = ()

    def permits(self, address: Address) -> bool:
        inside = _ipv4_inside(address)
        if self._is_opened(address):
            # An opened NAT64 prefix opens the public internet behind it, not the private networks.
            return inside is None or self.permits(inside)
        if isinstance(address, ipaddress.IPv4Address):
            return not any(address in network for network in _FORBIDDEN_V4)
        if address in _MAPPED:
            return inside is not None and self._is_opened(inside)
        return (
            address in _GLOBAL_V6
            and not any(address in network for network in _FORBIDDEN_V6)
            and (int(address) >> 32) & 0xFFFF_FFFF not in _ISATAP
        )

    def check(self, address: Address) -> None:
        """Raises:
        ForbiddenDestination: *address* must not be connected to.
        """
        if not self.permits(address):
            raise ForbiddenDestination(f"{address} is not an address of the public internet")

    def _is_opened(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.allow)


def check_url(url: str, allow: Iterable[Network] = ()) -> str:
    """*url* as deliveries will use it, or the reason why they cannot.

    The host is written as it will be looked up: lower case, punycode, an IPv4 address as four decimal numbers (so
    `http://0x7f.1/` is 127.0.0.1 and refused). Names are not looked up here.

    Raises:
        ForbiddenDestination: a literal address, or a name of this machine, that *allow* does not open.
        BadDestination: it is not a URL that a delivery can be posted to.
    """
    scheme, host, port, rest = _split(url)
    guard = Guard(tuple(allow))
    if host.startswith("["):
        literal: Address | None = _ipv6(host[1:-1])
    else:
        host = _name(host)
        literal = _ipv4(host)
    if literal is not None:
        guard.check(literal)
        host = f"[{literal}]" if literal.version == 6 else str(literal)
    elif _is_this_machine(host) and not any(guard.permits(loopback) for loopback in _LOOPBACKS):
        raise ForbiddenDestination(f"{host} is this machine, not an address of the public internet")
    try:
        return str(httpx.URL(f"{scheme}://{host}{port}{rest}"))
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadDestination(f"not a URL: {error}") from error


def literal_address(host: str) -> Address | None:
    """The address that *host* spells, None if it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _split(url: str) -> tuple[str, str, str, str]:
    """Scheme, host, `:port` (or nothing) and the rest of *url*, each of them as it was written."""
    if len(url) > LONGEST_URL:
        raise BadDestination(f"longer than {LONGEST_URL} characters")
    if _UNFIT.search(url):
        raise BadDestination("a URL holds no spaces, control characters or backslashes")
    if not (match := _URL.fullmatch(url)):
        raise BadDestination("expected a URL that starts with https:// or http://")
    scheme, authority, rest = match.groups()
    if "#" in url:
        raise BadDestination("a fragment (#…) is never sent; leave it out")
    if "@" in authority:
        raise BadDestination("credentials in the URL are not allowed; use the subscription's headers")
    if not (match := _AUTHORITY.fullmatch(authority)):
        raise BadDestination("the host is missing" if not authority else "not a host with or without a port")
    host, port = match.groups()
    if port and not 1 <= int(port) <= 65_535:
        raise BadDestination("the port must be from 1 to 65535")
    return scheme.lower(), host, f":{int(port)}" if port else "", rest


def _is_this_machine(host: str) -> bool:
    name = host.rstrip(".")
    return name == "localhost" or name.endswith((".localhost", ".localdomain"))


def _name(host: str) -> str:
    """*host* as DNS knows it: compatibility forms (full-width digits, ideographic full stops) mapped, punycode."""
    try:
        mapped = idna.uts46_remap(host, std3_rules=False)
        name = mapped if mapped.isascii() else idna.encode(mapped).decode()
    except (idna.IDNAError, UnicodeError) as error:
        raise BadDestination(f"not a host name: {error}") from error
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise BadDestination("not a host name")
    return name


def _ipv6(host: str) -> Address:
    try:
        return ipaddress.IPv6Address(host)
    except ValueError as error:
        raise BadDestination(f"not an IPv6 address: {error}") from error


def _ipv4(host: str) -> Address | None:
    """The address that a browser would make of *host* (WHATWG URL, "ends in a number"), None if it is a name."""
    parts = host.rstrip(".").split(".")
    if not _NUMBER.fullmatch(parts[-1]):
        return None
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise BadDestination("a host that ends in a number is an IPv4 address, and this is none")
    try:
        numbers = [_number(part) for part in parts]
    except ValueError as error:
        raise BadDestination("not an IPv4 address") from error
    last = numbers.pop()
    if any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
        raise BadDestination("not an IPv4 address: a number is too large")
    return ipaddress.IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(numbers)) + last)


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if len(text) > 1 and text.startswith("0") else 10)


def _ipv4_inside(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    for network, shift in _IPV4_INSIDE:
        if address in network:
            return ipaddress.IPv4Address((int(address) >> shift) & 0xFFFF_FFFF)
    return None
