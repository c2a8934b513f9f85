"""The meter passes measurements on to the instrument of the user's, whatever that does."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from pgsession._protocol.log_rate import Seldom
from pgsession.instrument import Instrument, Operation

__all__ = ["Meter", "Stopwatch"]


class Meter:
    """Tells an instrument, if there is one; nothing that it raises passes.

    Args:
        instrument: The instrument; None: there is none.
        logger: Takes what it raises.
    """

    def __init__(self, instrument: Instrument | None, logger: logging.Logger) -> None:
        self._instrument = instrument
        self._logger = logger
        self._failures = Seldom()
        self.active = instrument is not None
        """True where somebody wants to know: else it is not worth taking the time."""

    def note(self, operation: Operation, seconds: float, count: int = 1, error: str | None = None) -> None:
        """Tell of one measurement."""
        if self._instrument is None:
            return
        try:
            self._instrument.measured(operation, seconds, count, error)
        except Exception as failure:
            others = self._failures.admit()
            if others is not None:
                self._logger.error(
                    "the instrument raised an error%s",
                    others,
                    exc_info=failure,
                    extra={"pgsession_event": "instrument_failed"},
                )

    def watch(self, operation: Operation, count: int = 1) -> Stopwatch:
        """Return a block that is measured."""
        return Stopwatch(self, operation, count)


class Stopwatch:
    """Measures a block, however it ends."""

    __slots__ = ("_began", "_count", "_meter", "_operation")

    def __init__(self, meter: Meter, operation: Operation, count: int) -> None:
        self._meter = meter
        self._operation = operation
        self._count = count

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        name = None if kind is None else f"{kind.__module__}.{kind.__qualname__}"
        self._meter.note(self._operation, time.monotonic() - self._began, self._count, name)
