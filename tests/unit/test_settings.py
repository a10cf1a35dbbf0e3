"""A bad setting is told in one line that names it; nothing else about it may be surprising."""

import json
import os

import pytest
from cryptography.fernet import Fernet

from gateway.settings import RETRY_SCHEDULE, BadSetting, load


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GATEWAY_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "http", "integer"),
        ("PORT", "70000", "65535"),
        ("DATABASE_URL", "mysql://localhost/x", "sqlite:///"),
        ("DATABASE_URL", "sqlite://", "sqlite:///"),
        ("DATABASE_URL", "postgresql://localhost", "postgresql://"),
        ("DATABASE_URL", "postgresql:///", "postgresql://"),
        ("BUS_URL", "amqp://localhost", "memory://"),
        ("BUS_URL", "nats://", "nats://host"),
        ("BUS_URL", "postgres://", "SQLite"),
        ("BUS_URL", "nats://localhost:4222", "SQLite"),
        ("ADMIN_KEY", "short", "8 to 256"),
        ("ADMIN_KEY", "with a space in it", "spaces"),
        ("CORS_ORIGINS", "https://app.example.com", "JSON"),
        ("CORS_ORIGINS", '["app.example.com"]', "item 0"),
        ("DESTINATION_ALLOW", '["10.0.0.0/8", "10.0.0.0/99"]', "item 1"),
        ("RETRY_SCHEDULE", "[5, -1]", "item 1"),
        ("RETRY_SCHEDULE", '["soon"]', "number"),
        ("DELIVERY_TIMEOUT_SECONDS", "61", "60"),
        ("DELIVERY_TIMEOUT_SECONDS", "nan", "60"),
        ("MAX_DELIVERY_AGE_SECONDS", "0", "greater than 0"),
        ("STREAM_HEARTBEAT_SECONDS", "0", "greater than 0"),
        ("MAX_STREAMS", "-1", "0"),
        ("EVENT_RETENTION_SECONDS", "0", "greater than 0"),
        ("ATTEMPT_RETENTION_SECONDS", "inf", "3153600000"),
        ("LOG_FORMAT", "xml", "json"),
        ("SECRET_KEY", '["c2VjcmV0"]', "item 0"),
        ("SECRET_KEY", '["correct-horse-battery", "too-short"]', "item 1): expected a Fernet key, or any passphrase"),
        ("SECRET_KEY", "correct-horse-battery", "JSON"),
    ],
)
def test_a_bad_setting_is_named_in_one_line_that_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"GATEWAY_{name}", value)
    with pytest.raises(BadSetting) as bad:
        load()
    line = str(bad.value)
    assert line.startswith(f"GATEWAY_{name}")
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [("ADMIN_KEY", "se cret"), ("SECRET_KEY", '["se cret"]'), ("SECRET_KEY", "se cret"), ("SECRET_KEY", '["se cret')],
)
def test_a_bad_key_is_not_repeated_in_the_message(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"GATEWAY_{name}", value)
    with pytest.raises(BadSetting) as bad:
        load()
    assert "se cret" not in str(bad.value)


def test_a_secret_key_is_a_fernet_key_or_a_passphrase_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [Fernet.generate_key().decode(), "correct horse battery"]
    monkeypatch.setenv("GATEWAY_SECRET_KEY", json.dumps(keys))
    settings = load()
    assert [key.get_secret_value() for key in settings.secret_key] == keys
    assert all(key not in repr(settings) for key in keys)


def test_without_any_variable_the_defaults_are_those_of_the_contract() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.database_url) == ("127.0.0.1", 8000, "sqlite:///gateway.db")
    assert tuple(settings.retry_schedule) == RETRY_SCHEDULE
    assert settings.delivery_timeout_seconds == settings.stream_heartbeat_seconds == 15
    assert settings.event_retention_seconds == settings.attempt_retention_seconds == 30 * 86_400


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", "")
    monkeypatch.setenv("GATEWAY_PORT", "")
    assert load().admin_key is None
    assert load().port == 8000


def test_lists_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DESTINATION_ALLOW", '["127.0.0.1/8", "::1"]')
    monkeypatch.setenv("GATEWAY_RETRY_SCHEDULE", "[0.5, 2]")
    assert load().destination_allow == ["127.0.0.0/8", "::1/128"]
    assert load().retry_schedule == [0.5, 2]


@pytest.mark.parametrize(
    ("database", "given", "bus"),
    [
        ("sqlite:///g.db", "", "memory://"),
        ("postgresql://u@h/d", "", "postgres://"),
        ("postgresql://u@h/d", "memory://", "memory://"),
        ("postgresql://u@h/d", "nats://h:4222", "nats://h:4222"),
    ],
)
def test_the_bus_is_what_the_database_brings_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch, database: str, given: str, bus: str
) -> None:
    monkeypatch.setenv("GATEWAY_DATABASE_URL", database)
    monkeypatch.setenv("GATEWAY_BUS_URL", given)
    assert load().bus == bus


def test_a_bad_database_is_named_and_not_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DATABASE_URL", "postgresql://u:secret@h")
    monkeypatch.setenv("GATEWAY_BUS_URL", "postgres://")
    with pytest.raises(BadSetting, match="GATEWAY_DATABASE_URL") as bad:
        load()
    assert "secret" not in str(bad.value)
