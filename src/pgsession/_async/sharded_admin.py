"""The sharded admin looks at the sessions of several servers, and ends them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar, cast
from uuid import UUID

import msgspec

from pgsession._concurrency import GRACE, AsyncAction, AsyncBackgroundTasks
from pgsession._database.administration import Choice
from pgsession._database.connections import no_answer
from pgsession._protocol import rules
from pgsession._protocol.shards import home_of, home_of_resource, number_in
from pgsession.config import Config
from pgsession.errors import ShardsFailed
from pgsession.infos import Finding, LockInfo, NodeInfo, SessionInfo
from pgsession.shard import Shard, complete

from .admin import _LONGEST_PAGE, AsyncAdmin, SessionId, _choice, _some_choice
from .of_each import of_each

R = TypeVar("R")
_Part = tuple[int, AsyncAdmin]


class AsyncShardedAdmin(AsyncAdmin):
    """Is an `AsyncAdmin` of all shards, which are asked at the same time, those of one server one after the other.

    A call about one user, session or lock asks the shard that has it, so that a server that is down is in the way of
    its own users only. Where some of several shards fail, the error is `ShardsFailed`, which has what the others gave.
    `diagnose` says in each message which shard it is about.

    Args:
        shards: As for `AsyncShardedSessionManager`, with texts as conninfos.
        config: As for `AsyncAdmin`.

    Raises:
        TypeError: An argument is of a wrong type.
        ConfigError: A shard has no conninfo, or the shards cannot be what is meant.
    """

    def __init__(self, shards: Sequence[Shard | str], config: Config | None = None) -> None:
        config = Config() if config is None else rules.instance("config", config, Config, "a Config or None")
        given = complete(shards, config.schema_name)
        self._logger = config.logger or logging.getLogger("pgsession")
        self._legacy = next((number for number, shard in enumerate(given) if shard.legacy), None)
        self._all: list[_Part] = []
        self._by_server: dict[str, list[_Part]] = {}
        for number, shard in enumerate(given):
            own = msgspec.structs.replace(
                config, schema_name=shard.schema_name, listener_conninfo=shard.listener_conninfo
            )
            part = (number, AsyncAdmin(cast("str", shard.database), own))
            self._all.append(part)
            self._by_server.setdefault(str(shard.database), []).append(part)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._all)}>"

    async def _on(self, numbers: set[int], do: AsyncAction[AsyncAdmin, R]) -> dict[int, R]:
        """Return what it gives on each of these shards, by number.

        Raises:
            ShardsFailed: It failed on some of several; of one, what that failed with.
        """
        parts = [[part for part in parts if part[0] in numbers] for parts in self._by_server.values()]
        background = AsyncBackgroundTasks(self._logger, most=max(len(parts), 1))

        async def each(some: list[_Part]) -> list[tuple[int, R | None, Exception | None]]:
            answers: list[tuple[int, R | None, Exception | None]] = []
            down: Exception | None = None
            for number, admin in some:
                try:
                    answers.append((number, None, down) if down else (number, await do(admin), None))
                except Exception as error:
                    answers.append((number, None, error))
                    down = error if no_answer(error) else None
            return answers

        try:
            of_servers = await of_each(lambda some: background, [some for some in parts if some], each)
        finally:
            await background.drain(GRACE)
        done: dict[int, R] = {}
        failed: dict[int, Exception] = {}
        for some, answers, error in of_servers:
            for number, result, failure in answers or [(number, None, error) for number, _ in some]:
                if failure is None:
                    done[number] = cast("R", result)
                else:
                    failed[number] = failure
        if failed:
            if len(numbers) == 1:
                raise next(iter(failed.values()))
            ordered = {number: failed[number] for number in sorted(failed)}
            raise ShardsFailed(dict(sorted(done.items())), ordered) from next(iter(ordered.values()))
        return done

    def _which(self, choice: Choice | None = None) -> set[int]:
        """Return the shards that may have such sessions; None: all."""
        which = {number for number, _ in self._all}
        if choice is not None and choice.user_id is not None:
            which = {home_of(choice.user_id, len(self._all))}
            which |= {self._legacy} if self._legacy is not None else set()
        if choice is not None and choice.session_id is not None:
            number = number_in(bytes.fromhex(choice.session_id), len(self._all), self._legacy)
            which &= set() if number is None else {number}
        return which

    async def list_sessions(
        self,
        *,
        user_id: str | int | UUID | None = None,
        group_id: str | int | UUID | None = None,
        active_within: timedelta | float | None = None,
        older_than: timedelta | float | None = None,
        session_id: SessionId | None = None,
        after: SessionId | None = None,
        limit: int = 100,
        with_values: bool = False,
    ) -> list[SessionInfo]:
        """Return a page of the live sessions of all shards, in the order of their ids: see `AsyncAdmin`.

        Args:
            user_id: As for `AsyncAdmin.list_sessions`, as are all others.
            group_id: Those of this group.
            active_within: Those that were accessed so lately.
            older_than: Those that were created so long ago.
            session_id: The one of this id.
            after: The id of the last session of the page before.
            limit: How many at most, from 1 to 1000.
            with_values: True: with their attributes.
        """
        choice = _choice(user_id, group_id, active_within, older_than, session_id)
        rules.optional_session_id("after", after)
        limit = rules.count("limit", limit, 1, _LONGEST_PAGE)
        rules.boolean("with_values", with_values)
        pages = await self._on(
            self._which(choice),
            lambda admin: admin.list_sessions(
                user_id=user_id, group_id=group_id, active_within=active_within, older_than=older_than,
                session_id=session_id, after=after, limit=limit, with_values=with_values,
            ),
        )  # fmt: skip
        return sorted((each for page in pages.values() for each in page), key=lambda each: each.id)[:limit]

    async def count(
        self,
        *,
        user_id: str | int | UUID | None = None,
        group_id: str | int | UUID | None = None,
        active_within: timedelta | float | None = None,
        older_than: timedelta | float | None = None,
        session_id: SessionId | None = None,
    ) -> int:
        """Return the number of live sessions of all shards that fit all that is given.

        Args:
            user_id: As for `AsyncAdmin.list_sessions`, as are all others.
            group_id: Those of this group.
            active_within: Those that were accessed so lately.
            older_than: Those that were created so long ago.
            session_id: The one of this id.
        """
        choice = _choice(user_id, group_id, active_within, older_than, session_id)
        counts = await self._on(
            self._which(choice),
            lambda admin: admin.count(
                user_id=user_id, group_id=group_id, active_within=active_within, older_than=older_than,
                session_id=session_id,
            ),
        )  # fmt: skip
        return sum(counts.values())

    async def revoke(
        self,
        *,
        user_id: str | int | UUID | None = None,
        group_id: str | int | UUID | None = None,
        active_within: timedelta | float | None = None,
        older_than: timedelta | float | None = None,
        session_id: SessionId | None = None,
    ) -> int:
        """End the sessions of all shards that fit all that is given; return how many: see `AsyncAdmin`.

        Args:
            user_id: As for `AsyncAdmin.list_sessions`, as are all others.
            group_id: Those of this group.
            active_within: Those that were accessed so lately.
            older_than: Those that were created so long ago.
            session_id: The one of this id.

        Raises:
            ValueError: Nothing is given.
        """
        choice = _some_choice(user_id, group_id, active_within, older_than, session_id)
        ended = await self._on(
            self._which(choice),
            lambda admin: admin.revoke(
                user_id=user_id, group_id=group_id, active_within=active_within, older_than=older_than,
                session_id=session_id,
            ),
        )  # fmt: skip
        return sum(ended.values())

    async def list_locks(self, *, after: str | int | UUID | None = None, limit: int = 100) -> list[LockInfo]:
        """Return a page of the locks that are held in all shards, in the order of their resources.

        Args:
            after: The resource of the last lock of the page before; None: the first page.
            limit: How many at most, from 1 to 1000.
        """
        behind = rules.optional_identifier("after", after)
        limit = rules.count("limit", limit, 1, _LONGEST_PAGE)
        pages = await self._on(self._which(), lambda admin: admin.list_locks(after=behind, limit=limit))
        return sorted((each for page in pages.values() for each in page), key=lambda each: each.resource)[
            :limit
        ]

    async def break_lock(self, resource: str | int | UUID) -> bool:
        """End the lock on a resource in the shard that has it; return True if somebody held it.

        Args:
            resource: The name of what is locked, as given to `lock`.
        """
        name = rules.identifier("resource", resource)
        number = home_of_resource(name, len(self._all), self._legacy)
        return (await self._on({number}, lambda admin: admin.break_lock(name)))[number]

    async def nodes(self) -> list[NodeInfo]:
        """Return the nodes that are registered, the oldest first; a process is one in each shard."""
        found = await self._on(self._which(), lambda admin: admin.nodes())
        return sorted(
            (each for nodes in found.values() for each in nodes),
            key=lambda each: (each.registered_at, each.node),
        )

    async def diagnose(self) -> list[Finding]:
        """Look for each cause that can keep a node from working, in each shard, which the messages name.

        Returns:
            What came of each cause, shard by shard.
        """
        unreached: dict[object, list[Finding]] = {}

        async def look(admin: AsyncAdmin) -> list[Finding]:
            found = unreached.get(admin._database) or await admin.diagnose()
            if any(each.cause == "connection" and each.level == "problem" for each in found):
                unreached[admin._database] = found  # of all of that server, each of which would wait as long
            return found

        found = await self._on(self._which(), look)
        return [
            msgspec.structs.replace(each, message=f"shard {number}: {each.message}")
            for number in sorted(found)
            for each in found[number]
        ]

    async def rotate_secret(self) -> None:
        """Make other secrets, one for each shard, from which the names of the nodes' channels follow."""
        await self._on(self._which(), lambda admin: admin.rotate_secret())
