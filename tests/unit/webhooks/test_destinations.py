"""Where deliveries may go, and all the ways of spelling where they may not."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.destinations import Guard, check_url, parse_networks
from webhooks.errors import BadDestination, ForbiddenDestination

LOCAL = parse_networks(["127.0.0.0/8", "::1"])


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
        *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.2.1"),
        *("192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
        *("239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8"),
        *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:1:2::3", "2001:2::1"),
        *("2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1"),
        *("fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1", "2606:4700::5efe:7f00:1"),
    ],
)
def test_addresses_that_are_not_of_the_public_internet_are_refused(address: str) -> None:
    assert not Guard().permits(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1"),
        *("223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2400::1", "2001:4860::8888", "2003::1"),
    ],
)
def test_addresses_of_the_public_internet_are_permitted(address: str) -> None:
    assert Guard().permits(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_gets_through_by_being_written_as_ipv6(address: ipaddress.IPv4Address) -> None:
    value = int(address)
    for embedding in (value, 0xFFFF << 32 | value, 0x64_FF9B << 96 | value, 0x2002 << 112 | value << 80):
        assert not Guard().permits(ipaddress.IPv6Address(embedding))


@given(st.ip_addresses(v=4))
def test_everything_that_python_holds_to_be_private_is_refused(address: ipaddress.IPv4Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert not Guard().permits(address)


def test_opened_networks_are_permitted_and_nothing_else_with_them() -> None:
    guard = Guard(parse_networks(["127.0.0.1", "10.1.0.0/16", "fd00::/8"]))
    permitted = ["127.0.0.1", "10.1.2.3", "fd12::1", "::ffff:10.1.2.3", "8.8.8.8"]
    refused = ["127.0.0.2", "10.2.0.1", "fe80::1", "::ffff:10.2.0.1", "64:ff9b::a01:203", "::1"]
    assert [address for address in permitted + refused if guard.permits(ipaddress.ip_address(address))] == permitted


def test_an_opened_nat64_prefix_opens_only_the_public_internet_behind_it() -> None:
    guard = Guard(parse_networks(["64:ff9b::/96"]))
    assert guard.permits(ipaddress.ip_address("64:ff9b::808:808"))
    assert not guard.permits(ipaddress.ip_address("64:ff9b::7f00:1"))
    assert not guard.permits(ipaddress.ip_address("64:ff9b::a9fe:a9fe"))


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://127.1", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/"),
        *("http://0x7f.1/", "http://0177.0.0.1/", "http://017700000001/", "http://0/", "http://127.0.0.1./"),
        *("http://127。0。0。1/", "http://127.0.0.1/", "http://①②⑦.0.0.1/", "http://0X7F.0.0.1/", "http://0x/"),
        *(
            "http://localhost/",
            "http://LOCALHOST:80/",
            "http://localhost./",
            "http://a.localhost",
            "https://ⓛocalhost/",
        ),
        *("http://localhost.localdomain/", "http://[::1]/", "http://[0:0::1]:80/x", "http://[::ffff:127.0.0.1]/"),
        *("http://[::ffff:7f00:1]/", "http://[64:ff9b::7f00:1]/", "http://169.254.169.254/latest/meta-data/"),
        *("http://192.168.0.1:8080/x?y=z", "http://lo\u00adcalhost/", "http://loc\u200balhost/"),
    ],
)
def test_every_spelling_of_a_forbidden_literal_is_refused_at_once(url: str) -> None:
    with pytest.raises(ForbiddenDestination):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "javascript:alert(1)"),
        *(
            "http:/example.com",
            "http:///x",
            "http://",
            "http://:80/",
            "http://?x",
            "http://#x",
            "http://.",
            "http://..a/",
        ),
        *("http://user@example.com/", "http://user:pass@example.com/", "http://@example.com/", "http://a@b@c/"),
        *(
            "http://example.com:0/",
            "http://example.com:65536/",
            "http://example.com:http/",
            "http://example.com:99999999",
        ),
        *("http://example.com/#fragment", "http://exa mple.com/", "http://example.com/a b", "http://example.com/\n"),
        *("http://example.com\\@127.0.0.1/", "http://example.com%2f@127.0.0.1/", "http://%31%32%37.0.0.1/"),
        *("http://[::1", "http://::1/", "http://[fe80::1%25eth0]/", "http://[::g]/", "http://[]/", "http://[1.2.3.4]/"),
        *("http://256.1.1.1/", "http://1.2.3.4.5/", "http://08.1/", "http://1.2.3.0x100/", "http://example.0x7f/"),
        *("http://xn--/", "http://a..b/", "http://-a.com/", "http://exa!mple.com/", "http://exa\x00mple.com/"),
        *("http://" + "a" * 64 + ".com/", "http://" + "a." * 127 + "com/", "http://example.com/" + "x" * 2_048),
        *("http://example.com/\ud800", "http://\ud800/"),
    ],
)
def test_what_is_no_url_to_post_to_is_refused_in_words(url: str) -> None:
    with pytest.raises(BadDestination) as refused:
        check_url(url)
    assert str(refused.value)
    assert not isinstance(refused.value, ForbiddenDestination)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://example.com/hooks", "https://example.com/hooks"),
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.COM/Hooks?A=b", "https://example.com/Hooks?A=b"),
        ("https://example.com:8443/", "https://example.com:8443/"),
        ("https://example.com./", "https://example.com./"),
        ("https://exämple.com/ü?ö", "https://xn--exmple-cua.com/%C3%BC?%C3%B6"),
        ("https://example.com/%2F%zz?x=%20", "https://example.com/%2F%zz?x=%20"),
        ("http://134744072/", "http://8.8.8.8/"),
        ("http://8.255.8.255:1/", "http://8.255.8.255:1/"),
        ("http://example.com:65535/", "http://example.com:65535/"),
        ("http://0x8.8.2056/", "http://8.8.8.8/"),
        ("http://[2606:4700:0::1111]:8080/", "http://[2606:4700::1111]:8080/"),
        ("http://hooks_1.internal-name/", "http://hooks_1.internal-name/"),
    ],
)
def test_a_good_url_is_written_as_it_will_be_used(url: str, normal: str) -> None:
    assert check_url(url) == normal
    assert check_url(normal) == normal


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/x", "http://localhost:9000/x", "http://[::1]:9000/x"])
def test_an_opened_network_opens_its_literals_and_the_names_of_this_machine(url: str) -> None:
    assert check_url(url, LOCAL) == url


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        parse_networks(["10.0.0.0/8", "intranet"])


@given(st.text(max_size=40), st.sampled_from(["http://{}", "https://{}/", "http://{}:80/x", "http://[{}]/", "{}"]))
def test_any_text_is_a_url_that_stays_as_it_is_or_refused(text: str, frame: str) -> None:
    try:
        normal = check_url(frame.format(text))
    except BadDestination:
        return
    assert check_url(normal) == normal


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "0x{:x}", "0{:o}"]))
def test_a_number_is_the_address_that_it_spells(number: int, form: str) -> None:
    address = ipaddress.IPv4Address(number)
    url = f"http://{form.format(number)}/"
    if Guard().permits(address):
        assert check_url(url) == f"http://{address}/"
    else:
        with pytest.raises(ForbiddenDestination):
            check_url(url)
