"""Statements of the hot path: compiled once for each database, and executed by the driver itself.

SQLAlchemy takes some 40 us of CPU to execute a statement that it has compiled before, the driver 6. So the statements
that each mail costs run here, and all others through SQLAlchemy. Values are bound and read by the types of SQLAlchemy
here, too, its errors are raised and its listeners called. Only `Prepared.ask` runs outside of a transaction.
"""

import json
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only, greenlet_spawn

Processor = Callable[[Any], Any]

NOTHING: Final[Mapping[str, object]] = {}
KEPT: Final = 100
"""Statements that a connection to PostgreSQL keeps prepared."""


class _Parameter(NamedTuple):
    """How one place of a statement gets its value."""

    name: str
    process: Processor | None
    given: bool
    """False: the statement itself has the value."""
    value: Any

    def bind(self, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any]) -> Iterable[Any]:
        """Return the values of the place for rows; `shared` are those that are alike for all of them."""
        if not self.given:
            return repeat(self.value, len(rows))
        name, process = self.name, self.process
        if name in shared:
            return repeat(shared[name] if process is None else process(shared[name]), len(rows))
        values = map(itemgetter(name), rows)
        return values if process is None else map(process, values)


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement in the words of one database."""

    text: str
    parameters: tuple[_Parameter, ...]
    results: tuple[tuple[int, Processor], ...]
    """The columns whose values the driver does not return as they are."""
    row: Callable[[Iterable[Any]], Any]

    def bind(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the values in the order of their places."""
        bound = []
        for name, process, given, value in self.parameters:
            if given:
                bound.append(values[name] if process is None else process(values[name]))
            else:
                bound.append(value)
        return bound

    def bind_all(self, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the same for many rows, column by column: no line of Python runs for a single value."""
        return list(zip(*(parameter.bind(rows, shared) for parameter in self.parameters), strict=True))

    def read(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the rows that the driver has read, as named tuples of our values; column by column, too."""
        if not (rows and self.results):
            return list(map(self.row, rows))
        columns = list(zip(*rows, strict=True))
        for place, process in self.results:
            columns[place] = tuple(map(process, columns[place]))
        return list(map(self.row, zip(*columns, strict=True)))


class Prepared:
    """A statement that is compiled when it first runs on a database.

    Its parameters are named, and all of those without a value must be given. It must have none that SQLAlchemy expands,
    such as the list of an IN: `bulk.Among` compares with a list.
    """

    def __init__(
        self, statement: sa.Executable | Mapping[str, sa.Executable], columns: Sequence[str] | None = None
    ) -> None:
        """Prepare a statement, or one for each dialect; of an insert or update, what `columns` it sets.

        Rows are named tuples of the selected columns.
        """
        self._statements = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def statement(self, dialect: str) -> Any:
        """Return the statement for a database."""
        return self._statements[dialect] if isinstance(self._statements, Mapping) else self._statements

    def rows(self, connection: sa.Connection, values: Mapping[str, Any] = NOTHING) -> list[Any]:
        """Execute the statement; return its rows."""
        compiled = self._on(connection.dialect)
        found, _ = execute_text(connection, compiled.text, compiled.bind(values), fetch=True)
        return compiled.read(found)

    async def ask(self, connection: sa.Connection, values: Mapping[str, Any] = NOTHING) -> list[Any]:
        """Execute the statement on PostgreSQL outside of a transaction; return its rows.

        A function over a connection would run in a greenlet, which costs as much as half of the driver's work.
        """
        compiled = self._on(connection.dialect)
        text, bound = compiled.text, compiled.bind(values)
        try:
            _tell(connection, text, bound)
            found, _ = await _ask(connection, text, bound)
        except BaseException as error:
            translated = await greenlet_spawn(_translated, connection, error, text)
            if translated is error:
                raise
            raise translated from error
        return compiled.read(found)

    def execute(self, connection: sa.Connection, values: Mapping[str, Any] = NOTHING) -> int:
        """Execute the statement; return how many rows it changed."""
        compiled = self._on(connection.dialect)
        return execute_text(connection, compiled.text, compiled.bind(values))[1]

    def many(
        self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any] = NOTHING
    ) -> int:
        """Execute the statement once for each row, in their order; return how many it changed, -1 on PostgreSQL.

        `shared` are the values that are alike for all rows.
        """
        compiled = self._on(connection.dialect)
        return execute_text(connection, compiled.text, compiled.bind_all(rows, shared), many=True)[1]

    def _on(self, dialect: sa.Dialect) -> _Compiled:
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            # Two threads may do so at the same time, with the same result.
            compiled = self._compiled[dialect.name] = self._compile(dialect)
        return compiled

    def _compile(self, dialect: sa.Dialect) -> _Compiled:
        statement = self.statement(dialect.name)
        compiled = statement.compile(dialect=dialect, column_keys=self._columns)
        places = [_parameter(compiled.binds[name], name, dialect) for name in compiled.positiontup]
        columns = list(statement.exported_columns)
        processes = [_reading(column.type, dialect) for column in columns]
        results = tuple((place, process) for place, process in enumerate(processes) if process is not None)
        named = namedtuple("Row", [column.key for column in columns], rename=True)  # type: ignore[misc]  # noqa: PYI024
        # As `_make`, which checks the number of columns for each row.
        return _Compiled(str(compiled), tuple(places), results, partial(tuple.__new__, named))


def _reading(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Processor | None:
    """Return how a driver's value becomes one of a type; None: as it is, as both drivers return floats."""
    if isinstance(kind, sa.Float):
        return None
    if isinstance(kind, sa.JSON) and dialect.name == "sqlite":
        return read_json
    return kind.dialect_impl(dialect).result_processor(dialect, None)


_DECODER: Final = json.JSONDecoder()


def read_json(value: Any) -> Any:
    """Read JSON as `json.loads` does, without its steps for values that the relay did not write."""
    if value is None:
        return None
    if isinstance(value, str) and value[:1] in _OPENINGS:
        read, end = _DECODER.raw_decode(value)
        if end == len(value):
            return read
    return json.loads(value)


_OPENINGS: Final = ("[", "{")


def _writer() -> Callable[[Any], str]:
    """Return the function below."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.dumps
    plain = json.JSONEncoder()
    separators = plain.key_separator, plain.item_separator
    options = plain.sort_keys, plain.skipkeys, plain.allow_nan
    encode = make(None, plain.default, json.encoder.encode_basestring_ascii, None, *separators, *options)
    return lambda value: "".join(encode(value, 0))


write_json: Final = _writer()
"""Write JSON as `json.dumps` does, which makes an encoder for each value: that takes longer than most values."""


def _parameter(bound: sa.BindParameter[Any], name: str, dialect: sa.Dialect) -> _Parameter:
    written = bound.type.dialect_impl(dialect).bind_processor(dialect)
    process = write_json if isinstance(bound.type, sa.JSON) else written
    if bound.expanding:
        raise AssertionError(f"a statement that cannot be prepared: {name} is a list")
    if bound.required:
        return _Parameter(name, process, given=True, value=None)
    value = bound.effective_value
    return _Parameter(name, None, given=False, value=value if process is None else process(value))


def execute_text(
    connection: sa.Connection, text: str, values: Sequence[Any] = (), *, fetch: bool = False, many: bool = False
) -> tuple[Sequence[Sequence[Any]], int]:
    """Execute a statement by the driver; return rows and their number, as the driver counts changed ones.

    Raises what SQLAlchemy raises for the driver's errors.
    """
    try:
        _tell(connection, text, values, many=many)
        if connection.dialect.name == "postgresql":
            return await_only(_ask(connection, text, values, many=many))
        with closing(connection.connection.cursor()) as cursor:
            (cursor.executemany if many else cursor.execute)(text, values)
            return cursor.fetchall() if fetch else (), cursor.rowcount
    except BaseException as error:
        translated = _translated(connection, error, text)
        if translated is error:
            raise
        raise translated from error


def _tell(connection: sa.Connection, text: str, values: Sequence[Any], *, many: bool = False) -> None:
    for listen in connection.dispatch.before_cursor_execute:  # as for all other statements
        listen(connection, None, text, values, None, many)


async def _ask(
    connection: sa.Connection, text: str, values: Sequence[Any], *, many: bool = False
) -> tuple[Sequence[Sequence[Any]], int]:
    """Execute a statement by asyncpg; SQLAlchemy's cursor would describe each column of the rows first."""
    driver: Any = connection.connection.driver_connection
    if many:
        await driver.executemany(text, values)
        return (), -1
    prepared = connection.info.setdefault("prepared", {})
    statement = prepared.get(text)
    if statement is None:
        if len(prepared) >= KEPT:
            prepared.clear()
        statement = prepared[text] = await driver.prepare(text)
    rows = await statement.fetch(*values)
    number = statement.get_statusmsg().rpartition(" ")[2]
    return rows, int(number) if number.isdecimal() else -1


def _translated(connection: sa.Connection, error: BaseException, text: str) -> BaseException:
    """Return the error that SQLAlchemy raises for a driver's error, and drop a connection that is of no use any more.

    The connection is dropped if it is lost, if a statement was interrupted (e.g. by the end of its task) or had no
    answer in time, or if the server's tables are not those for which the driver has prepared its statements.
    """
    dialect = connection.dialect
    driver = dialect.loaded_dbapi
    if not isinstance(error, Exception) or isinstance(error, TimeoutError):
        connection.invalidate(error)
        return error
    cause = next((_named(driver, name, error) for kind, name in _KINDS if isinstance(error, kind)), error)
    if not isinstance(cause, driver.Error):
        return error
    dropped = isinstance(cause, driver.NotSupportedError) or dialect.is_disconnect(
        cause, connection.connection.dbapi_connection, None
    )
    if dropped:
        connection.invalidate(cause)
    return DBAPIError.instance(
        text,
        None,
        cause,
        driver.Error,
        hide_parameters=True,
        connection_invalidated=dropped,
        dialect=dialect,
    )


_KINDS: Final = (
    (asyncpg.IntegrityConstraintViolationError, "IntegrityError"),
    (asyncpg.InvalidCachedStatementError, "NotSupportedError"),
    (asyncpg.PostgresError, "Error"),
    (asyncpg.InterfaceError, "InterfaceError"),
    (asyncpg.InternalClientError, "InterfaceError"),  # the server has said that it ends the session
)
"""Errors of asyncpg, and their names in Python's interface for databases [PEP 249], by which SQLAlchemy knows them."""


def _named(driver: Any, name: str, error: Exception) -> Exception:
    named: Exception = getattr(driver, name)(error.args[0], error)  # without the details, which have values
    named.__cause__ = error
    return named
