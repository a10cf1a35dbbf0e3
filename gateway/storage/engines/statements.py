"""SQLAlchemy's statements as drivers take them: SQL and values in, rows out.

    statement ──compile, once──▶ Prepared ──bind(values)──▶ (SQL, values) ──driver──▶ read(tuples) ──▶ rows

SQLAlchemy writes the SQL and knows the types. To run it by way of its own connections costs 100 us a statement and
500 us a transaction, where SQLite takes 2 and 12: that was most of what an event cost.
"""

import logging
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

log = logging.getLogger(__name__)

PREPARED_AT_MOST = 500
_LENGTHS_AT_MOST = 32

_Convert = Callable[[Any], Any]
_Values = tuple[Any, ...]


class Prepared:
    """A statement compiled, for values of the same names."""

    def __init__(self, statement: Executable, compiled: SQLCompiler, floats: object) -> None:
        self._compiled = compiled
        parameters = compiled.bind_names.items()
        dialect = compiled.dialect
        self._converters = {name: _to_driver(parameter.type, dialect) for parameter, name in parameters}
        self._lists = sorted(name for parameter, name in parameters if parameter.expanding)
        self._sql, self._names = compiled.string, tuple(compiled.positiontup or ())
        self._converts = [(name, self._converters[name]) for name in self._names]
        columns = list(getattr(statement, "selected_columns", ()))
        self._row = _row_type(tuple(column.key for column in columns)) if columns else None
        readers = [_from_driver(column.type, dialect, floats) for column in columns]
        self._readers = [(at, read) for at, read in enumerate(readers) if read is not None]
        self.only_changes = compiled.isinsert or compiled.isupdate or compiled.isdelete
        """It answers how many rows it has changed, and none of them."""
        self._of_lengths = lru_cache(_LENGTHS_AT_MOST)(self._expanded)

    def bind(self, values: Mapping[str, Any]) -> tuple[str, _Values]:
        """The SQL, and *values* in its order."""
        if not self._lists:
            return self._sql, self._in_order(values)
        lists = {name: _padded(values[name]) for name in self._lists}
        sql, spots = self._of_lengths(tuple([len(some) for some in lists.values()]))
        bound = [values[name] if at is None else lists[name][at] for name, at, _ in spots]
        return sql, tuple(
            [convert(value) if convert else value for value, (_, _, convert) in zip(bound, spots, strict=True)]
        )

    def bind_many(self, values: Iterable[Mapping[str, Any]]) -> tuple[str, list[_Values]]:
        return self._sql, [self._in_order(each) for each in values]

    def read(self, found: Iterable[Iterable[Any]], names: Callable[[], Iterable[str]]) -> list[Any]:
        """*found* as rows, values as SQLAlchemy's types make them. *names*: of its columns, asked where the statement
        does not say."""
        if self._row is None:
            self._row = _row_type(tuple(names()))
        make: Callable[[Iterable[Any]], Any] = self._row._make  # type: ignore[attr-defined] # a namedtuple's own
        if not self._readers:
            return [make(each) for each in found]
        rows = []
        for each in found:
            converted = list(each)
            for at, read in self._readers:
                converted[at] = read(converted[at])
            rows.append(make(converted))
        return rows

    def constants(self, parameters: Sequence[Any] | None) -> Mapping[str, Any]:
        """The values that stand in a statement that reads as this one and has *parameters*."""
        given = {name: None for parameter, name in self._compiled.bind_names.items() if parameter.required}
        values = self._compiled.construct_params(given, extracted_parameters=parameters, escape_names=False)
        return {name: value for name, value in values.items() if name not in given}

    def _in_order(self, values: Mapping[str, Any]) -> _Values:
        return tuple([convert(values[name]) if convert else values[name] for name, convert in self._converts])

    def _expanded(self, lengths: tuple[int, ...]) -> tuple[str, list[tuple[str, int | None, _Convert | None]]]:
        """The SQL for lists of *lengths*, and where each of its values comes from."""
        dummies: dict[str, Any] = dict.fromkeys(self._compiled.bind_names.values())
        for name, length in zip(self._lists, lengths, strict=True):
            dummies[name] = [None] * length
        state = self._compiled.construct_expanded_state(dummies, escape_names=False)
        origin = {one: (name, at) for name, some in state.parameter_expansion.items() for at, one in enumerate(some)}
        spots: list[tuple[str, int | None, _Convert | None]] = []
        for one in state.positiontup or ():
            name, at = origin.get(one, (one, None))
            spots.append((name, at, self._converters[name]))
        return state.statement, spots


class Statements:
    """Prepares each statement once: by itself while it lives, and by its shape, as long as there are not too many.

    *floats* is what the driver calls the type of floating-point columns, where *dialect* asks for that.
    """

    def __init__(self, dialect: Dialect, floats: object = None) -> None:
        self._dialect = dialect
        self._floats = floats
        self._by_itself: WeakKeyDictionary[Executable, dict[tuple[str, ...], tuple[Prepared, Mapping[str, Any]]]]
        self._by_itself = WeakKeyDictionary()
        self._by_shape: dict[Any, Prepared] = {}
        self._shaping = Lock()
        self.listeners: list[Callable[[str, Sequence[Any]], None]] = []
        """Are told of each statement that is sent, and its values: of many that are sent with it, the first."""

    def prepared(self, statement: Executable, names: tuple[str, ...]) -> tuple[Prepared, Mapping[str, Any]]:
        """*statement* for values of *names*, and the values that stand in it."""
        if (known := self._by_itself.get(statement)) and (found := known.get(names)):
            return found
        found = self._shaped(statement, names)
        self._by_itself.setdefault(statement, {})[names] = found
        return found

    @property
    def known(self) -> int:
        """How many are prepared by their shape."""
        return len(self._by_shape)

    def tell(self, sql: str, values: Sequence[Any] = ()) -> None:
        # Never the values: there are payloads and secrets among them.
        log.debug("%s", sql)
        for listener in self.listeners:
            listener(sql, values)

    def _shaped(self, statement: Executable, names: tuple[str, ...]) -> tuple[Prepared, Mapping[str, Any]]:
        key = statement._generate_cache_key()  # type: ignore[attr-defined]
        if key is None:
            made = self._compiled(statement, names, None)
            return made, made.constants(None)
        shape = (names, *key.key)
        with self._shaping:
            # The last used are last, and the first are forgotten.
            prepared = self._by_shape.pop(shape, None) or self._compiled(statement, names, key)
            self._by_shape[shape] = prepared
            if len(self._by_shape) > PREPARED_AT_MOST:
                del self._by_shape[next(iter(self._by_shape))]
        return prepared, prepared.constants(key.bindparams)

    def _compiled(self, statement: Executable, names: tuple[str, ...], key: Any) -> Prepared:  # noqa: ANN401
        compiled = statement.compile(  # type: ignore[attr-defined] # every statement of ours is a clause
            dialect=self._dialect, column_keys=list(names), cache_key=key
        )
        return Prepared(statement, cast("SQLCompiler", compiled), self._floats)


def _padded(some: Sequence[Any]) -> list[Any]:
    """*some*, the last of them again and again up to a power of two: who looks for one of them finds the same, and one
    statement does for many lengths."""
    found = list(some)
    return found + found[-1:] * ((1 << (len(found) - 1).bit_length()) - len(found)) if found else found


@lru_cache(PREPARED_AT_MOST)
def _row_type(names: tuple[str, ...]) -> type[tuple[Any, ...]]:
    return namedtuple("Row", names, rename=True)  # noqa: PYI024 - the names are known only now


def _to_driver(type_: TypeEngine[Any], dialect: Dialect) -> _Convert | None:
    return type_.dialect_impl(dialect).bind_processor(dialect)


def _from_driver(type_: TypeEngine[Any], dialect: Dialect, floats: object) -> _Convert | None:
    return type_.dialect_impl(dialect).result_processor(dialect, floats)
