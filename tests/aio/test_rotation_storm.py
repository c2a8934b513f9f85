"""Rotations, logins, saves and requests of several nodes at once: who is let in, and whose session is written to."""

from __future__ import annotations

import random
import secrets
from typing import Any

import pgsession
from pgsession import Signer
from tests.crew import AsyncCrew

from .conftest import OpenAsyncManager
from .helpers import eventually

SIGNER = Signer(b"k" * 32)
USERS = (None, "alice", "bob", "carol")
NODES, BROWSERS, ROTATIONS, REQUESTS, SAVES = 3, 4, 12, 40, 25


class Browser:
    """One session, and the token that its browser has. The attribute `owner` says whom whoever saved it took it for."""

    def __init__(self, session: pgsession.Session, token: str) -> None:
        self.id = session.id
        self.token = token
        self.begun = self.done = 0
        """Rotations of it; while one is under way the token may be refused."""
        self.ended: list[str] = []
        """Tokens that a rotation has ended at once."""


class Storm:
    """What everybody does, each with luck of its own."""

    def __init__(self, nodes: list[pgsession.AsyncSessionManager]) -> None:
        self.nodes = nodes
        self.browsers: list[Browser] = []
        self.refused = self.saved = 0

    async def begin(self) -> None:
        for _ in range(BROWSERS):
            session = await self.nodes[0].create_session("alice", {"owner": "alice", "n": 0})
            token = self.nodes[0].token(session)
            assert token is not None
            self.browsers.append(Browser(session, token))

    async def rotate(self, browser: Browser, luck: random.Random) -> None:
        """One request after the other rotates the session, and gives the browser its new token."""
        for _ in range(ROTATIONS):
            node = luck.choice(self.nodes)
            opened = await node.open_token(browser.token)
            assert opened.state == "current" and opened.session is not None, opened.state
            session, before = opened.session, browser.token
            options: Any = luck.choice(({}, {"grace": 0}, {"user_id": luck.choice(USERS)}))
            if "user_id" in options:
                session["owner"] = options["user_id"]
            browser.begun += 1
            await node.rotate_session(session, **options)
            token = node.token(session)
            assert token is not None, "nobody else rotates it"
            if options:
                assert await node.get_session_by_token(before) is None, "ended at once on this node"
                browser.ended.append(before)
            browser.token = token
            browser.done += 1

    async def ask(self, luck: random.Random) -> None:
        """Requests with the token of the moment."""
        for _ in range(REQUESTS):
            browser, node = luck.choice(self.browsers), luck.choice(self.nodes)
            done = browser.done
            opened = await node.open_token(browser.token)
            if opened.session is None:
                assert browser.begun > done, f"refused: {opened.state}"
            else:
                self.check(opened.session)

    async def save(self, luck: random.Random) -> None:
        """Holds a session for a while, and saves in it for whom it was taken."""
        for _ in range(SAVES):
            browser, node = luck.choice(self.browsers), luck.choice(self.nodes)
            session = await node.get_session(browser.id)
            assert session is not None
            self.check(session)
            await luck.choice(self.nodes).get_session(browser.id, refresh=True)
            session["owner"] = session.user_id
            session["n"] = luck.random()
            try:
                await luck.choice(self.nodes).update_session(session)
            except pgsession.SessionNotFoundError:
                self.refused += 1
            else:
                self.check(session)
                self.saved += 1

    def check(self, session: pgsession.Session) -> None:
        assert session["owner"] == session.user_id, "somebody else's save is in it"


async def test_whoever_is_current_is_let_in_and_nobody_writes_into_anothers_session(
    open_manager: OpenAsyncManager,
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    luck = random.Random(seed)
    nodes = [await open_manager(signer=SIGNER, max_sessions=0) for _ in range(NODES)]
    storm, crew = Storm(nodes), AsyncCrew()
    await storm.begin()
    for browser in storm.browsers:
        crew.start(storm.rotate, browser, random.Random(luck.random()))
    for _ in range(6):
        crew.start(storm.ask, random.Random(luck.random()))
        crew.start(storm.save, random.Random(luck.random()))
    await crew.join()
    assert storm.saved

    async def all_ended() -> bool:
        opened = [
            await node.open_token(token) for node in nodes for one in storm.browsers for token in one.ended
        ]
        return all(one.session is None for one in opened)

    await eventually(all_ended, "the end of all tokens that were ended")
    for browser in storm.browsers:
        for node in nodes:
            assert (await node.open_token(browser.token)).state == "current"
            session = await node.get_session(browser.id, refresh=True)
            assert session is not None
            storm.check(session)
