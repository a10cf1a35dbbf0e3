"""Secrets and signatures, against the official packages of Standard Webhooks and Svix, both ways."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

import webhooks
from webhooks.errors import (
    BadBody,
    BadSecret,
    BadTimestamp,
    MissingHeader,
    NoMatchingSignature,
    TooNew,
    TooOld,
    VerificationError,
)
from webhooks.signing import Secret, Signature, new_secret, sign

NOW = datetime(2025, 10, 27, 6, 1, 0, 700_000, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
BODY = b'{"test": 2432232314}'


def a_receiver(secret: object = SECRET, now: datetime = NOW) -> webhooks.Webhook:
    return webhooks.Webhook(secret, clock=lambda: now)  # type: ignore[arg-type]  # a test may give something else


def headers_of(*secrets: Secret, body: bytes = BODY, now: datetime = NOW) -> dict[str, str]:
    seconds = int(now.timestamp())
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(seconds),
        "webhook-signature": sign(secrets, "evt_1", seconds, body, now),
    }


def test_the_known_answer_of_the_standard() -> None:
    secret = Secret.parse(SECRET)
    signature = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY, NOW)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("package", [standardwebhooks.Webhook, svix.webhooks.Webhook])
@pytest.mark.parametrize("body", [BODY, '{"a":"ü🙂"}'.encode(), b"{}"])
def test_the_official_packages_accept_what_is_signed_here(package: type, body: bytes) -> None:
    now = datetime.now(UTC)
    secret = new_secret()
    package(secret.text).verify(body, headers_of(secret, body=body, now=now))
    package(secret.text).verify(body, headers_of(new_secret(), secret, body=body, now=now))


@pytest.mark.parametrize("package", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_what_the_official_packages_sign_is_accepted_here(package: type) -> None:
    headers = {
        "Webhook-Id": "evt_1",
        "WEBHOOK-TIMESTAMP": str(int(NOW.timestamp())),
        "webhook-signature": package(SECRET).sign("evt_1", NOW, BODY.decode()),
    }
    assert a_receiver().verify(BODY, headers) == {"test": 2432232314}
    assert a_receiver().verify(BODY.decode(), headers) == {"test": 2432232314}


def test_a_secret_reads_back_as_it_was_written() -> None:
    for signature in Signature:
        secret = new_secret(signature)
        assert Secret.parse(secret.text) == secret
    assert Secret.parse(PRIVATE).text == PRIVATE
    assert Secret.parse(PRIVATE).public_key == PUBLIC
    assert Secret.parse(SECRET).public_key is None
    seed_alone = "whsk_" + base64.b64encode(Secret.parse(PRIVATE).key).decode()
    assert Secret.parse(seed_alone).text == PRIVATE


@given(st.binary(min_size=24, max_size=64))
def test_any_key_of_24_to_64_bytes_is_a_secret_padded_or_not(key: bytes) -> None:
    text = "whsec_" + base64.b64encode(key).decode()
    assert Secret.parse(text).key == Secret.parse(text.rstrip("=")).key == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "whsec_short",
        "whsec_" + base64.b64encode(b"k" * 23).decode(),
        "whsec_" + base64.b64encode(b"k" * 65).decode(),
        "whsec_not base64 at all, but long enough to be a key",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS\n",
        "whsec_ü" + "k" * 40,
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsk_" + base64.b64encode(b"k" * 31).decode(),
        "whsk_" + base64.b64encode(b"k" * 64).decode(),
        PUBLIC,
    ],
)
def test_what_is_no_secret_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(BadSecret) as refused:
        Secret.parse(text)
    assert len(text) < 8 or text not in str(refused.value)


def test_a_secret_never_prints() -> None:
    for secret in (Secret.parse(SECRET), Secret.parse(PRIVATE)):
        assert str(secret.key) not in repr(secret)
        assert secret.text not in f"{secret!r} {secret}"


def test_while_a_secret_is_being_replaced_both_sign_until_the_old_one_ends() -> None:
    old = Secret(key=b"o" * 32, expires_at=NOW + timedelta(hours=1))
    new = new_secret()
    both = sign([new, old], "evt_1", 1, BODY, NOW)
    assert both.split() == [new.sign(b"evt_1.1." + BODY), old.sign(b"evt_1.1." + BODY)]
    later = NOW + timedelta(hours=1)
    assert sign([new, old], "evt_1", 1, BODY, later) == new.sign(b"evt_1.1." + BODY)


def test_a_receiver_can_hold_several_secrets() -> None:
    old, new = new_secret(), new_secret()
    receiver = a_receiver([new.text, old])
    assert receiver.verify(BODY, headers_of(old))
    assert receiver.verify(BODY, headers_of(new))
    with pytest.raises(NoMatchingSignature):
        receiver.verify(BODY, headers_of(new_secret()))


def test_v1a_is_ed25519_over_the_same_bytes_and_is_verified_by_the_public_key_alone() -> None:
    secret = Secret.parse(PRIVATE)
    headers = headers_of(secret)
    version, _, encoded = headers["webhook-signature"].partition(",")
    assert version == "v1a"
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(PUBLIC.removeprefix("whpk_")))
    public.verify(base64.b64decode(encoded), f"evt_1.{headers['webhook-timestamp']}.".encode() + BODY)
    assert a_receiver(PUBLIC).verify(BODY, headers)
    assert a_receiver([SECRET, PRIVATE]).verify(BODY, headers)
    with pytest.raises(NoMatchingSignature):
        a_receiver(PUBLIC).verify(BODY + b" ", headers)
    with pytest.raises(NoMatchingSignature):
        a_receiver(new_secret(Signature.V1A).public_key).verify(BODY, headers)


def test_an_hmac_made_with_the_public_key_is_not_taken_for_a_signature() -> None:
    public = base64.b64decode(PUBLIC.removeprefix("whpk_"))
    forged = headers_of(Secret(key=public))
    forged["webhook-signature"] += " " + forged["webhook-signature"].replace("v1,", "v1a,")
    with pytest.raises(NoMatchingSignature):
        a_receiver(PUBLIC).verify(BODY, forged)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_header_is_named(name: str, value: str | None) -> None:
    headers = headers_of(Secret.parse(SECRET))
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(MissingHeader, match=name):
        a_receiver().verify(BODY, headers)


@pytest.mark.parametrize("timestamp", ["now", "1e9", "+1", "-1", "1_0", "٣", "1.5", " 1", "9" * 400, "nan"])
def test_a_timestamp_that_is_no_number_of_seconds_is_refused(timestamp: str) -> None:
    with pytest.raises(BadTimestamp) as refused:
        a_receiver().verify(BODY, headers_of(Secret.parse(SECRET)) | {"webhook-timestamp": timestamp})
    assert type(refused.value) is BadTimestamp


@pytest.mark.parametrize(
    ("offset", "error"), [(-302, TooOld), (-300, None), (0, None), (299, None), (302, TooNew), (10**6, TooNew)]
)
def test_five_minutes_are_tolerated_either_way(offset: int, error: type[VerificationError] | None) -> None:
    headers = headers_of(Secret.parse(SECRET), now=NOW.replace(microsecond=0) + timedelta(seconds=offset))
    receiver = a_receiver(now=NOW.replace(microsecond=0))
    if error is None:
        receiver.verify(BODY, headers)
    else:
        with pytest.raises(error):
            receiver.verify(BODY, headers)


@pytest.mark.parametrize(
    "signature", ["v1", "v1,", ",", "v1,x", "v1,ÿ", "v2,", "v1a," + "A" * 86 + "==", "v1,AAAA v1,BBBB , ,,"]
)
def test_a_signature_that_does_not_fit_is_refused_whatever_it_looks_like(signature: str) -> None:
    for secret in (SECRET, PUBLIC):
        with pytest.raises(NoMatchingSignature):
            a_receiver(secret).verify(BODY, headers_of(Secret.parse(SECRET)) | {"webhook-signature": signature})


def test_one_of_several_signatures_is_enough() -> None:
    headers = headers_of(Secret.parse(SECRET))
    headers["webhook-signature"] = f"v2,AAAA v1a,BBBB {headers['webhook-signature']}"
    assert a_receiver().verify(BODY, headers)


@given(st.binary(max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_any_changed_byte_is_noticed(body: bytes, place: int, change: int) -> None:
    headers = headers_of(Secret.parse(SECRET), body=body)
    if not body:
        return
    changed = bytearray(body)
    changed[place % len(body)] ^= change
    with pytest.raises(NoMatchingSignature):
        a_receiver().verify(bytes(changed), headers)


@given(
    st.binary(), st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text())
)
def test_no_request_raises_anything_but_a_verification_error(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(VerificationError):
        a_receiver().verify(body, headers)


@pytest.mark.parametrize("body", [b"", b"not json", b"\xff", b"[" * 100_000])
def test_a_signed_body_that_is_not_json_says_so(body: bytes) -> None:
    with pytest.raises(BadBody):
        a_receiver().verify(body, headers_of(Secret.parse(SECRET), body=body))


def test_a_receivers_own_tests_can_sign() -> None:
    receiver = webhooks.Webhook([SECRET, PRIVATE])
    headers = receiver.sign("evt_9", '{"a":1}')
    assert receiver.verify('{"a":1}', headers) == {"a": 1}
    assert webhooks.Webhook(PUBLIC).verify(b'{"a":1}', headers) == {"a": 1}
    standardwebhooks.Webhook(SECRET.removeprefix("whsec_")).verify(
        '{"a":1}', {**headers, "webhook-signature": headers["webhook-signature"].split()[0]}
    )
    with pytest.raises(BadSecret):
        webhooks.Webhook(PUBLIC).sign("evt_9", b"")


@pytest.mark.parametrize("secret", ["", [], "whpk_AAAA", "whsec_x", ["whsec_x"]])
def test_a_receiver_without_a_usable_secret_is_refused(secret: object) -> None:
    with pytest.raises(BadSecret):
        a_receiver(secret)


def test_a_bare_base64_secret_is_taken_as_other_libraries_take_it() -> None:
    assert a_receiver(SECRET.removeprefix("whsec_")).verify(BODY, headers_of(Secret.parse(SECRET)))
