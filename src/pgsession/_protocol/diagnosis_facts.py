"""Facts are what a diagnosis has seen, for `diagnosis` to decide."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

__all__ = ["Connection", "Facts", "Heard", "Schema", "Server"]


class Server(Struct, kw_only=True):
    """Holds what a server says of itself; times in microseconds.

    Attributes:
        place: Stands for one database of one life of a server.
        connections_left: How many more connections this role can have.
        sees_transactions: True where the role is shown what others do.
        transactions: Of those open for long: process, role, state, seconds.
        locks: Those on our tables that keep others from writing or reading, each in words.
        not_vacuumed: Our tables for which autovacuum is turned off.
    """

    version: str
    version_number: int
    role: str
    standby: bool
    now: int
    place: str
    connections_left: int
    sees_transactions: bool
    transactions: list[tuple[int, str, str, int]]
    locks: list[str]
    autovacuum: bool
    not_vacuumed: list[str]
    synchronous_standbys: str
    queue_usage: float


class Schema(NamedTuple):
    """Holds what there is of our tables, functions and triggers, and what init and grants would have to do.

    Attributes:
        owner: Whose they are, None where there are none.
        untrusted: The sentence that says why they are not to be trusted, None where they are.
        version: Of the tables, and the oldest version of the library that they serve; None where that cannot be read.
        newest: The version that this library makes.
        init: The command that makes or upgrades them.
        granting: The same, which grants this role what a service needs as well.
    """

    owner: str | None
    untrusted: str | None
    version: tuple[int, int] | None
    newest: int
    missing: list[str]
    silent_triggers: list[str]
    public_functions: str
    grants: list[str]
    init: str
    granting: str


class Connection(NamedTuple):
    """Holds how a connection is made.

    Attributes:
        local: True where nothing of it leaves the machine.
        encrypted: True where it uses TLS.
        sslmode: What was asked for.
    """

    local: bool
    encrypted: bool
    sslmode: str


class Heard(NamedTuple):
    """Holds what became of a notification that was sent through the pool.

    Attributes:
        arrived: True where the listener heard it.
        failure: Why it could not be sent, None where it was.
    """

    arrived: bool
    failure: str | None
    seconds: float


class Facts(Struct, kw_only=True):
    """Holds what was seen; None: it was not looked at.

    Attributes:
        failure: Why the pool's connection cannot be made or was lost.
        too_many: True where that is for want of a free connection.
        clock: This machine's time at `server.now`, and how far that may be off, in microseconds.
        server: What the pool's server says.
        held: Locks that were there at the beginning and at the end.
        tables_locked: True where our tables could not be read since somebody holds a lock on them.
        incarnation: True where the row is there and of this life of the server.
        durable: False where a commit was not confirmed by a standby in time.
        listener_failure: Why the listener's connection cannot be made.
        listener_standby: True where it leads to a standby.
        listener_pooled: True where a pooler answers.
        listener_place: As `Server.place`.
        needed: Connections that a node takes at most.
    """

    needed: int
    failure: str | None = None
    too_many: bool = False
    clock: tuple[int, int] | None = None
    server: Server | None = None
    held: list[str] | None = None
    schema: Schema | None = None
    tables_locked: bool = False
    incarnation: bool | None = None
    durable: bool | None = None
    connection: Connection | None = None
    listener_connection: Connection | None = None
    listener_failure: str | None = None
    listener_standby: bool = False
    listener_pooled: bool = False
    listener_place: str | None = None
    heard: Heard | None = None
