"""The shape that every store of sessions takes here, so that all of them can be asked for the same work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from . import load, loops

if TYPE_CHECKING:
    from .race import Contender, Round
    from .stage import Stage

ATTRIBUTES: dict[str, Any] = {
    "role": "admin",
    "theme": "dark",
    "visits": 17,
    "cart": ["book", "pen"],
    "preferences": {"language": "en", "beta": True},
}
THREE = {key: ATTRIBUTES[key] for key in ("role", "theme", "cart")}
SESSIONS = 2048

_random = Random(21)


@dataclass(frozen=True)
class Service:
    """Sessions with `ATTRIBUTES`, and what is done with them. The operations of an asyncio service are awaited."""

    ids: Sequence[Any]
    read: Callable[[Any], Any]
    """The session, or its attributes decoded, from where all nodes see them: not from this process's memory."""
    change: Callable[[Any], Any]
    """What a request does: have the session, change one attribute, save."""
    create: Callable[[], Any]
    """A session of a new user with the attributes `THREE`."""


Opener = Callable[["Stage"], AbstractContextManager[Service]]


def changing(opener: Opener, callers: int, *, awaited: bool) -> Contender:
    """A contender that changes sessions, no two callers the same one."""

    def operation(service: Service) -> Callable[[int], Any]:
        return lambda caller: service.change(_one_of(service, caller, callers))

    return _loaded(opener, operation, callers, awaited)


def reading_at_once(opener: Opener, callers: int, *, awaited: bool) -> Contender:
    """A contender that reads sessions, no two callers the same one."""

    def operation(service: Service) -> Callable[[int], Any]:
        return lambda caller: service.read(_one_of(service, caller, callers))

    return _loaded(opener, operation, callers, awaited)


def _one_of(service: Service, caller: int, callers: int) -> Any:
    """The id of a session that is this caller's."""
    return service.ids[_random.randrange(SESSIONS // callers) * callers + caller]


def creating(opener: Opener, callers: int, *, awaited: bool) -> Contender:
    """A contender that creates sessions."""
    return _loaded(opener, lambda service: lambda caller: service.create(), callers, awaited)


def reading(opener: Opener, *, awaited: bool, count: int = 300) -> Contender:
    """A contender that reads sessions, one after the other, in random order."""

    def contender(stage: Stage) -> Iterator[Round]:
        with opener(stage) as service:

            def items() -> Sequence[Any]:
                return _random.sample(service.ids, count)

            if awaited:
                yield loops.awaiting_loop(stage.loop, service.read, items, waits=True)
            else:
                yield loops.loop(service.read, items, waits=True)

    return contender


def _loaded(
    opener: Opener, operation: Callable[[Service], Callable[[int], Any]], callers: int, awaited: bool
) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        with opener(stage) as service:
            if awaited:
                yield load.tasks(stage.loop, callers, operation(service))
            else:
                yield load.threads(callers, operation(service))

    return contender
