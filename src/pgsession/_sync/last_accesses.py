# Generated from src/pgsession/_async/last_accesses.py by tools/async_to_sync.py: never edit.

"""Last accesses are written here where a manager's own threads or event loop cannot do it any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

from pgsession._concurrency import connections_until, until
from pgsession._core.cache import Cache
from pgsession._database.arrays import integer_array, uuid_array
from pgsession._database.conninfo import pool_parameters
from pgsession._database.statements import Statements
from pgsession.errors import ConfigError


def write_last_accesses(
    conninfo: Callable[[], str],
    statements: Statements,
    cache: Cache,
    batch: int,
    logger: logging.Logger,
    deadline: float,
) -> None:
    """Write what is noted by the deadline, on a connection of its own and in the thread of the caller.

    `conninfo` is asked only where there is something to write.

    It is the same for threads and asyncio: nothing is started here and no event loop is used.
    """
    accesses = cache.take_accesses(batch)
    if not accesses:
        return
    late = partial(_passed, deadline)
    try:
        text = conninfo()
        parameters: dict[str, Any] = pool_parameters(text, connect_timeout=2)
        with connections_until(late).connect(text, autocommit=True, **parameters) as connection:
            while accesses:
                script = statements.write_accesses(
                    uuid_array(key for key, _ in accesses), integer_array(at for _, at in accesses)
                )
                with connection.lock:
                    connection.wait(until(late, script.run(connection.pgconn)))
                accesses = cache.take_accesses(batch)
    except (psycopg.Error, ConfigError) as error:
        logger.warning("last accesses were lost at the end: %s", error)


def _passed(deadline: float) -> bool:
    return time.monotonic() >= deadline
