"""PostgreSQL's protocol from the server's side, as far as psycopg needs it; what is answered is somebody else's matter.

What a client sends up to one synchronization point is a *unit*: it gets one fate, and its answers leave together.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

TEXT, BIGINT, BOOLEAN, BYTES, UUID, FLOAT = 25, 20, 16, 17, 2950, 701
SETTINGS = {
    "server_version": "17.0", "client_encoding": "UTF8", "in_hot_standby": "off", "integer_datetimes": "on",
    "default_transaction_read_only": "off", "standard_conforming_strings": "on", "DateStyle": "ISO, MDY",
}  # fmt: skip


class Failure(Exception):
    """An error that the server answers with."""

    def __init__(self, sqlstate: str, message: str = "scripted") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Cut(Exception):
    """The connection ends here."""


class Rows(NamedTuple):
    """What a statement answers with; no columns: it has no rows."""

    types: tuple[int, ...] = ()
    rows: Sequence[Sequence[Any]] = ()


class Step(NamedTuple):
    """One statement with its parameters."""

    statement: str
    parameters: tuple[str | None, ...]


class Connection:
    """One client's connection; `answer_unit` is the server's."""

    def __init__(
        self,
        pid: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer_unit: Callable[[Connection, list[Step]], Awaitable[None]],
    ) -> None:
        self.pid = pid
        self.state: dict[str, Any] = {}
        self.units: list[Step] = []  # the last one
        self.in_transaction = False
        self.failed = False
        self._reader, self._writer = reader, writer
        self._answer_unit = answer_unit
        self._out = bytearray()
        self._prepared: dict[str, str] = {}
        self._parsed: deque[int] = deque()  # before each step of the unit, and after the last
        self._extended = False
        self._busy = False
        self._notifications = bytearray()

    # What the server says

    def row_answer(self, answer: Rows) -> None:
        """The answer of one step."""
        if self._extended:
            self._parse_answers()
            self._out += _message(b"2", b"")
        if answer.types:
            columns = b"".join(b"c\0" + struct.pack("!ihihih", 0, 0, oid, -1, -1, 0) for oid in answer.types)
            self._out += _message(b"T", struct.pack("!h", len(answer.types)) + columns)
        elif self._extended:
            self._out += _message(b"n", b"")
        for row in answer.rows:
            values = b"".join(map(_value, row))
            self._out += _message(b"D", struct.pack("!h", len(row)) + values)
        self._out += _message(b"C", b"SELECT\0")

    def error_answer(self, failure: Failure) -> None:
        """The error of one step; the rest of the unit is skipped."""
        self._parse_answers()
        self._parsed.clear()
        fields = {"S": "ERROR", "V": "ERROR", "C": failure.sqlstate, "M": str(failure)}
        body = b"".join(name.encode() + text.encode() + b"\0" for name, text in fields.items())
        self._out += _message(b"E", body + b"\0")

    def _parse_answers(self) -> None:
        if self._parsed:
            self._out += _message(b"1", b"") * self._parsed.popleft()

    def notify(self, channel: str, payload: str) -> None:
        """A notification, at once or after the unit that is being answered."""
        body = struct.pack("!i", self.pid) + channel.encode() + b"\0" + payload.encode() + b"\0"
        self._notifications += _message(b"A", body)
        if not self._busy:
            self._flush()

    def cut(self) -> None:
        """End it without a word."""
        self._writer.transport.abort()

    # What the client says

    async def serve(self) -> None:
        """Until either side ends it."""
        try:
            await self._start()
            while True:
                steps = await self._unit()
                self._busy = True
                self.units = steps
                await self._answer_unit(self, steps)
                self._parse_answers()
                status = b"E" if self.failed else b"T" if self.in_transaction else b"I"
                self._out += self._notifications + _message(b"Z", status)
                self._notifications.clear()
                self._busy = False
                self._flush()
        except (Cut, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.cut()

    def _flush(self) -> None:
        self._out += self._notifications
        self._notifications.clear()
        self._writer.write(bytes(self._out))
        self._out.clear()

    async def _start(self) -> None:
        (length,) = struct.unpack("!i", await self._reader.readexactly(4))
        await self._reader.readexactly(length - 4)
        self._out += _message(b"R", struct.pack("!i", 0))
        for name, value in SETTINGS.items():
            self._out += _message(b"S", name.encode() + b"\0" + value.encode() + b"\0")
        self._out += _message(b"K", struct.pack("!ii", self.pid, 0)) + _message(b"Z", b"I")
        self._flush()

    async def _unit(self) -> list[Step]:
        steps: list[Step] = []
        self._parsed = deque([0])
        while True:
            kind, body = await self._message()
            if kind == b"Q":
                self._extended = False
                return [Step(text.strip(), ()) for text in body[:-1].decode().split(";") if text.strip()]
            if kind == b"S":
                self._extended = True
                return steps
            if kind == b"P":
                name, statement, _ = body.split(b"\0", 2)
                self._prepared[name.decode()] = statement.decode()
                self._parsed[-1] += 1
            elif kind == b"B":
                steps.append(self._bound(body))
                self._parsed.append(0)
            elif kind == b"X":
                raise Cut

    async def _message(self) -> tuple[bytes, bytes]:
        head = await self._reader.readexactly(5)
        (length,) = struct.unpack("!i", head[1:])
        return head[:1], await self._reader.readexactly(length - 4)

    def _bound(self, body: bytes) -> Step:
        _, name, rest = body.split(b"\0", 2)
        (formats,) = struct.unpack_from("!h", rest)
        binary = struct.unpack_from(f"!{formats}h", rest, 2)
        at = 2 + 2 * formats
        (count,) = struct.unpack_from("!h", rest, at)
        at += 2
        values: list[str | None] = []
        for number in range(count):
            (length,) = struct.unpack_from("!i", rest, at)
            at += 4
            value = rest[at : at + length] if length >= 0 else None
            at += max(length, 0)
            is_binary = bool(binary) and binary[number if len(binary) > 1 else 0] == 1
            if value is None:
                values.append(None)
            else:
                values.append(str(int.from_bytes(value, "big", signed=True)) if is_binary else value.decode())
        return Step(self._prepared[name.decode()], tuple(values))


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _value(value: Any) -> bytes:
    if value is None:
        return struct.pack("!i", -1)
    if isinstance(value, bool):
        text = b"t" if value else b"f"
    elif isinstance(value, bytes):
        text = b"\\x" + value.hex().encode()
    else:
        text = str(value).encode()
    return struct.pack("!i", len(text)) + text
