"""What is known of a node's absences, and what may not be: that a session is absent of which the node has heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.oracle import Violation

if TYPE_CHECKING:
    from tests.simulation.node import Node


class Absences:
    """The reads by which one node may say that a session is absent."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._serials: dict[bytes, int] = {}

    def read(self, key: bytes, serial: int) -> None:
        """A read has found no session: `serial` is that of the deletion, 0 where there never was one."""
        self._serials[key] = serial

    def serial(self, key: bytes) -> int:
        """Of what memory says that is no more."""
        return self._serials[key]

    def check(self) -> None:
        """C1, C7: nobody is called absent once the node has heard, or has itself told, that he is there."""
        node, oracle = self._node, self._node.world.oracle
        for key in node.world.keys:
            if node.cache.is_absent(key):
                if node.cache.version(key):
                    raise Violation(f"C4: {node.name} holds {key[-1]}, and says that it is absent")
                for known in (node.arrived.get(key), node.returned.get(key)):
                    commit = oracle.commits[known[-1]] if known else None
                    if commit is not None and commit.serial > self._serials[key] and not commit.deleted:
                        raise Violation(
                            f"C1: {node.name} says that {key[-1]} is absent, and knows of {commit}"
                        )
