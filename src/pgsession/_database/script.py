"""A script is several statements with bound parameters, sent and answered in one round trip.

They go through the extended protocol as a pipeline with one synchronization point at its end: what they are called with
is in no statement's text, so it is in no log and no view of the server's activity. After an error the server skips the
rest. Needs a libpq of version 14 or later.

To parse, analyse and plan a write's statements costs the server half of what it computes for one update. So they are
prepared, once for each connection, at their first use on it. A name says which text it stands for: whatever shares
server connections between clients, none is ever called that is another text. psycopg knows nothing of it, and must not
be asked to roll back: afterwards it discards all that is prepared on the connection.

A connection may lose what is prepared on it: by `DEALLOCATE ALL` or `DISCARD ALL`, or where it leads to another server
process, by way of a pooler. Then nothing is prepared on it for a while, for longer where that happens again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from psycopg import generators, pq
from psycopg.pq import ExecStatus

Parameter: TypeAlias = "str | int | bool | None"
Row = tuple[Any, ...]

_ROWS: Final = ExecStatus.TUPLES_OK
_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)

FIRST_PAUSE: Final = (
    1.0  # seconds after a loss for which nothing is prepared; after the next one twice as long
)
LONGEST_PAUSE: Final = 60.0


class Prepared:
    """Knows the names of what is prepared on a connection, and for how long nothing more is to be."""

    def __init__(self) -> None:
        self.names: set[bytes] = set()
        self._pause = 0.0  # seconds
        self._until = float("-inf")

    @property
    def pauses(self) -> bool:
        """Return True for a while after something was lost."""
        return time.monotonic() < self._until

    def note_lost(self) -> None:
        """Note that something was not there any more."""
        self.names.clear()
        self._begin_pause()

    def note_others(self, name: bytes) -> None:
        """Note that somebody else has prepared it: by its name, it is the same text."""
        self.names.add(name)
        self._begin_pause()

    def _begin_pause(self) -> None:
        now = time.monotonic()
        lasted = now - self._until > LONGEST_PAUSE
        self._pause = FIRST_PAUSE if lasted else min(2 * self._pause, LONGEST_PAUSE)
        self._until = now + self._pause


_PREPARED: Final[WeakKeyDictionary[pq.abc.PGconn, Prepared]] = WeakKeyDictionary()


class Step(NamedTuple):
    """Holds one statement of a script, with its parameters.

    Attributes:
        statement: Its text.
        parameters: What it is called with.
        name: What it is prepared as; None where its text is of this call alone.
    """

    statement: bytes
    parameters: tuple[bytes | None, ...] = ()
    name: bytes | None = None

    def bound(self, *parameters: Parameter) -> Step:
        """Return the same statement with these parameters."""
        return Step(self.statement, tuple(map(_bound, parameters)), self.name)


class CommitFailed(Exception):
    """A statement failed after the one that has the answer: of the first transaction's commit, or later.

    Attributes:
        error: The statement's error.
    """

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.error = error


class Script(NamedTuple):
    """Holds the statements of one or more transactions, and the number of the one that has the answer."""

    steps: tuple[Step, ...]
    answer: int

    def limited(self, seconds: float) -> Script:
        """Return the script with a limit for each of the statements of its first transaction."""
        limit = step(f"SET LOCAL statement_timeout = {limit_of(seconds)}")
        begin, *rest = self.steps
        return Script((begin, limit, *rest), self.answer + 1)

    def run(self, connection: pq.abc.PGconn, *, prepares: bool = False) -> Generator[Any, Any, Row | None]:
        """Send everything, and read all of the results.

        This is for `RoundTrips`, or psycopg's `Connection.wait`, on a connection that nobody else uses meanwhile.

        Args:
            connection: The connection.
            prepares: True where what is prepared on it is to be used; unless it has lost some of it not long ago.

        Returns:
            The one row of the answer, or None if it has none; that is known only once the last statement has succeeded.

        Raises:
            psycopg.Error: An error of the statement with the answer, or of one before it: nothing was committed. Or the
                connection was lost, and is closed.
            CommitFailed: The first error is of a later statement.
        """
        prepared = _PREPARED.setdefault(connection, Prepared()) if prepares else Prepared()
        prepares = prepares and not prepared.pauses
        new = [
            (name, text) for text, _, name in self.steps if prepares and name and name not in prepared.names
        ]
        first = next((number for number, one in enumerate(self.steps) if one.name), 0)
        try:
            connection.enter_pipeline_mode()
            for number, (statement, parameters, name) in enumerate(self.steps):
                if number == first:  # behind the limits; and an error comes before anything is done
                    for missing, text in new:
                        connection.send_prepare(missing, text)
                if prepares and name:
                    connection.send_query_prepared(name, parameters)
                else:
                    connection.send_query_params(statement, parameters)
            connection.pipeline_sync()
            yield from generators.send(connection)
            results = yield from _results(connection)
            connection.exit_pipeline_mode()
        except BaseException:
            connection.finish()  # nobody knows what it would answer next
            raise
        last = self.answer + len(new)
        for number, result in enumerate(results):
            if result.status in _FAILED:
                error = _without_details(psycopg.errors.error_from_result(result))
                if isinstance(error, psycopg.errors.InvalidSqlStatementName):
                    prepared.note_lost()
                elif isinstance(error, psycopg.errors.DuplicatePreparedStatement) and number < first + len(
                    new
                ):
                    prepared.note_others(new[number - first][0])
                raise error if number <= last else CommitFailed(error)
            if first <= number < first + len(new):  # that stays, whatever becomes of the transaction
                prepared.names.add(new[number - first][0])
        return _row(results[last])


ROLL_BACK: Final = Script(
    (Step(b"ROLLBACK"), Step(b"SELECT pg_catalog.current_setting('pgsession.batch', true)")), 1
)
"""Ends the transaction of a script that has failed; answers with the mark of the last batch that was committed."""


def limit_of(seconds: float) -> int:
    """Return a limit for the server in its milliseconds, of which it takes no more than 2³¹ - 1."""
    return min(max(int(1000 * seconds), 1), 2**31 - 1)


def step(statement: str, *parameters: Parameter) -> Step:
    """Return a statement with `$1`, `$2`, ... for its parameters."""
    return Step(statement.encode(), tuple(map(_bound, parameters)))


def question(statement: str, parameters: tuple[Parameter, ...]) -> Script:
    """Return the script of one statement by itself, with `%s` for each parameter as psycopg has it."""
    return Script((_question(statement).bound(*parameters),), 0)


@cache
def _question(statement: str) -> Step:
    first, *rest = statement.split("%s")
    text = "".join([first, *(f"${number}{part}" for number, part in enumerate(rest, 1))])
    (one,) = prepared(step(text.replace("%%", "%")))
    return one


@cache
def prepared(*steps: Step) -> tuple[Step, ...]:
    """Return statements of a script to be prepared; none of them can be its first one.

    They are prepared together under names of their own. So on a connection that has lost some of them, a pooler's or
    one on which somebody has said `DEALLOCATE ALL`, already the first one is missing, and nothing was done.
    """
    digest = hashlib.sha256(b"\0".join(one.statement for one in steps)).hexdigest()[:32]
    return tuple(
        one._replace(name=b"pgs_%s_%d" % (digest.encode(), number)) for number, one in enumerate(steps)
    )


def _bound(parameter: Parameter) -> bytes | None:
    if parameter is None:
        return None
    if isinstance(parameter, bool):
        return b"t" if parameter else b"f"
    text = str(parameter).encode()
    if b"\0" in text:
        raise psycopg.DataError("PostgreSQL's text has no NUL (0x00) characters")
    return text


def _without_details(error: psycopg.Error) -> psycopg.Error:
    """Return the error with the server's message alone for its text, which ends in logs.

    Its DETAIL may show a row, as that of a constraint which somebody has added; `error.diag` has all.
    """
    if error.diag.message_primary is not None:
        error.args = (error.diag.message_primary,)
    return error


def _results(connection: pq.abc.PGconn) -> Generator[Any, Any, list[pq.abc.PGresult]]:
    """Return the results, one for each statement."""
    results: list[pq.abc.PGresult] = []
    while True:
        result = yield from generators.fetch(connection)
        if result is None:
            continue  # the end of a statement's results
        if result.status == ExecStatus.PIPELINE_SYNC:
            return results
        results.append(result)


def _row(result: pq.abc.PGresult) -> Row | None:
    if result.status != _ROWS:
        raise psycopg.ProgrammingError(f"a statement without rows where they were expected: {result.status}")
    if result.ntuples == 0:
        return None
    return tuple(_value(result, column) for column in range(result.nfields))


def _value(result: pq.abc.PGresult, column: int) -> Any:
    """Decode a value by its type alone: the connection's owner may have registered loaders for some."""
    value = result.get_value(0, column)
    if value is None:
        return None
    kind = result.ftype(column)
    if kind == 16:
        return value == b"t"
    if kind == 17:
        return pq.Escaping().unescape_bytea(value)
    if kind in (20, 23):
        return int(value)
    if kind == 2950:
        return UUID(value.decode())
    return value.decode()
