"""A cart that concurrent requests fill, on any number of nodes, without losing an item."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from common import config, database

from pgsession import Session, SessionManager


def add_to_cart(sessions: SessionManager, session_id: UUID, item: str) -> Session:
    """Reads, changes, saves; where another request was faster, reads again and tries once more.

    After that many tries it raises `ConflictError`: answer 409, and let the client repeat the request.
    """

    def add(session: Session) -> None:
        session["cart"] = [*session.get("cart", [], type=list[str]), item]

    return sessions.modify_session(session_id, add, check="attributes", retries=100)


def fill(nodes: list[SessionManager], session_id: UUID, items: list[str], clients: int) -> None:
    """Each item by whichever of the clients is free, at whichever of the nodes is next."""
    with ThreadPoolExecutor(clients) as executor:
        additions = [
            executor.submit(add_to_cart, nodes[number % len(nodes)], session_id, item)
            for number, item in enumerate(items)
        ]
        for addition in additions:
            addition.result()


def main() -> None:
    with (
        database() as conninfo,
        SessionManager(conninfo, config()) as one,
        SessionManager(conninfo, config()) as two,
    ):
        session = one.create_session("alice")
        fill([one, two], session.id, [f"item {number}" for number in range(100)], clients=20)
        found = one.get_session(session.id, refresh=True)
        assert found is not None
        print(f"{len(set(found['cart']))} different items in the cart")


if __name__ == "__main__":
    main()
