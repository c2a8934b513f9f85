"""A script is several statements with bound parameters, sent and answered in one round trip.

They go through the extended protocol as a pipeline with one synchronization point at its end: what they are called with
is in no statement's text, so it is in no log and no view of the server's activity. After an error the server skips the
rest. Needs a libpq of version 14 or later.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg import generators, pq
from psycopg.pq import ExecStatus

Parameter = str | int | bool | None
Row = tuple[Any, ...]

_ROWS: Final = ExecStatus.TUPLES_OK
_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


class Step(NamedTuple):
    """Holds one statement of a script, with its parameters."""

    statement: bytes
    parameters: tuple[bytes | None, ...] = ()


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
        limit = step(f"SET LOCAL statement_timeout = {max(int(1000 * seconds), 1)}")
        begin, *rest = self.steps
        return Script((begin, limit, *rest), self.answer + 1)

    def run(self, connection: pq.abc.PGconn) -> Generator[Any, Any, Row | None]:
        """Send everything, and read all of the results.

        This is for `Connection.wait` and its asynchronous twin, under the connection's lock.

        Returns:
            The one row of the answer, or None if it has none; that is known only once the last statement has succeeded.

        Raises:
            psycopg.Error: An error of the statement with the answer, or of one before it: nothing was committed. Or the
                connection was lost, and is closed.
            CommitFailed: The first error is of a later statement.
        """
        try:
            connection.enter_pipeline_mode()
            for statement, parameters in self.steps:
                connection.send_query_params(statement, parameters)
            connection.pipeline_sync()
            yield from generators.send(connection)
            results = yield from _results(connection)
            connection.exit_pipeline_mode()
        except BaseException:
            connection.finish()  # nobody knows what it would answer next
            raise
        for number, result in enumerate(results):
            if result.status in _FAILED:
                error = psycopg.errors.error_from_result(result)
                raise error if number <= self.answer else CommitFailed(error)
        return _row(results[self.answer])


def step(statement: str, *parameters: Parameter) -> Step:
    """Return a statement with `$1`, `$2`, ... for its parameters."""
    return Step(statement.encode(), tuple(map(_bound, parameters)))


def _bound(parameter: Parameter) -> bytes | None:
    if parameter is None:
        return None
    if isinstance(parameter, bool):
        return b"t" if parameter else b"f"
    text = str(parameter).encode()
    if b"\0" in text:
        raise psycopg.DataError("PostgreSQL's text has no NUL (0x00) characters")
    return text


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
    match result.ftype(column):
        case 16:
            return value == b"t"
        case 17:
            return pq.Escaping().unescape_bytea(value)
        case 20 | 23:
            return int(value)
        case 2950:
            return UUID(value.decode())
    return value.decode()
