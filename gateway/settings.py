"""Settings, from the environment, read once where the gateway is put together."""

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from gateway.bus import check_bus
from gateway.storage.engines.postgres.url import POSTGRES, check_url

DAY = 86_400
LONGEST = 100 * 365 * DAY
RETRY_SCHEDULE = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)


class BadSetting(Exception):
    """A variable that cannot be used; its words are one line that names it."""


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network in CIDR form, like 10.0.0.0/8") from error


def _secret_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not 16 <= len(text) <= 1024 or not text.isprintable():
        raise ValueError("expected a Fernet key, or any passphrase of 16 to 1,024 printable characters")
    return key


def _origin(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if text != "*" and (not separator or not scheme or not rest or "/" in rest):
        raise ValueError(f"{text!r} is not an origin, like https://app.example.com")
    return text


class Settings(BaseSettings):
    """Each is `GATEWAY_<NAME>` in the environment; lists are JSON. An empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    """Where to listen. 0.0.0.0 lets other machines in."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    """0 takes any free one, and says which."""
    database_url: str = "sqlite:///gateway.db"
    """Where the log and everything else is kept."""
    bus_url: str | None = None
    """What tells the processes of one gateway of each other's events; unset: what the database brings."""
    admin_key: SecretStr | None = None
    """An admin key that always works. Unset: one is made with an empty database, and printed once."""
    secret_key: list[Annotated[SecretStr, AfterValidator(_secret_key)]] = []
    """Keys to encrypt secrets at rest with: the first one writes, all read."""
    cors_origins: list[Annotated[str, AfterValidator(_origin)]] = []
    """Which web origins may read streams; ["*"] is any."""
    destination_allow: list[Annotated[str, AfterValidator(_network)]] = []
    """Networks that webhooks may reach although they are not of the public internet, like ["127.0.0.0/8"]."""
    retry_schedule: Annotated[list[Annotated[float, Field(ge=0, le=30 * DAY)]], Field(max_length=100)] = list(
        RETRY_SCHEDULE
    )
    """Seconds to wait after each failed attempt, ±20 %; one more attempt than waits is made."""
    delivery_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 15
    """How long a receiver may take, where its subscription does not say."""
    max_delivery_age_seconds: Annotated[float, Field(gt=0)] = 5 * DAY
    """After its first attempt a delivery is tried no longer than this."""
    disable_after_seconds: Annotated[float, Field(gt=0)] = 5 * DAY
    """A subscription that has failed at every attempt for so long is disabled."""
    stream_heartbeat_seconds: Annotated[float, Field(gt=0, le=3_600)] = 15
    """Shorter than the shortest idle time-out of any proxy on the way."""
    max_streams: Annotated[int, Field(ge=0)] = 20_000
    """Beyond it readers are turned away until there is room."""
    event_retention_seconds: Annotated[float, Field(gt=0, le=LONGEST)] = 30 * DAY
    """How long events are kept. What is still owed to one that leaves becomes a dead letter."""
    attempt_retention_seconds: Annotated[float, Field(gt=0, le=LONGEST)] = 30 * DAY
    """How long attempts are kept, and deliveries once they are settled: dead letters too."""
    log_format: Literal["console", "json"] = "console"

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if url.startswith(POSTGRES):
            check_url(url)
        elif not url.startswith("sqlite:///") or url in {"sqlite:///", "sqlite:///:memory:"}:
            raise ValueError(
                "expected sqlite:///path/to/file.db (four slashes for an absolute path) or postgresql://user@host/database"
            )
        return url

    @field_validator("bus_url")
    @classmethod
    def _fitting_bus(cls, url: str | None, others: ValidationInfo) -> str | None:
        if url is None or "database_url" not in others.data:  # the database is at fault, and named
            return url
        check_bus(url)
        if url != "memory://" and not str(others.data["database_url"]).startswith(POSTGRES):
            raise ValueError("expected memory://, the bus of one process, which is what SQLite serves")
        return url

    @property
    def bus(self) -> str:
        return self.bus_url or ("postgres://" if self.database_url.startswith(POSTGRES) else "memory://")

    @field_validator("admin_key")
    @classmethod
    def _usable_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-~]{8,256}", key.get_secret_value()):
            raise ValueError("expected 8 to 256 printable ASCII characters without spaces")
        return key


def load() -> Settings:
    """The settings as the environment has them.

    Raises:
        BadSetting: one of them cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        name, *where = (str(part) for part in fault["loc"])
        place = f" (item {'.'.join(where)})" if where else ""
        raise BadSetting(f"GATEWAY_{name.upper()}{place}: {_plain(fault['msg'])}") from None
    except SettingsError as error:
        # pydantic-settings names the field in its message: 'error parsing value for field "x" from source …'
        name = str(error).split('"')[1] if '"' in str(error) else "?"
        raise BadSetting(f'GATEWAY_{name.upper()}: expected a list in JSON, like ["a", "b"]') from None


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")
