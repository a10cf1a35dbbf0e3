"""Column types: how the gateway's values are kept, the same in every engine."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Dialect, LargeBinary
from sqlalchemy.types import TypeDecorator

from gateway.rollups.histogram import Histogram
from gateway.times import from_micros, to_micros

_MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """An aware datetime as whole microseconds since 1970: exact, sortable, and an integer everywhere."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_micros(value)


class Span(TypeDecorator[timedelta]):
    """A duration as whole microseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:
        return None if value is None else value // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:
        return None if value is None else timedelta(microseconds=value)


class Json(TypeDecorator[Any]):
    """Any JSON value, as its UTF-8 bytes. SQL never looks inside."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:  # noqa: ANN401 - any JSON value
        return None if value is None else msgspec.json.encode(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Any:  # noqa: ANN401 - any JSON value
        return None if value is None else msgspec.json.decode(value)


class Names(TypeDecorator[frozenset[str]]):
    """A set of names (libraries, types), as a sorted JSON list; NULL is "no limit"."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Iterable[str] | None, dialect: Dialect) -> bytes | None:
        return None if value is None else msgspec.json.encode(sorted(value))

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> frozenset[str] | None:
        return None if value is None else frozenset(msgspec.json.decode(value, type=list[str]))


class Buckets(TypeDecorator[Histogram]):
    """A histogram, as JSON."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Histogram | None, dialect: Dialect) -> bytes | None:
        return None if value is None else msgspec.json.encode(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Histogram | None:
        return None if value is None else msgspec.json.decode(value, type=Histogram)
