"""What Patroni's REST API says of a cluster, without a cluster: decisions on its answers."""

from __future__ import annotations

from typing import Any, NamedTuple


class Member(NamedTuple):
    """One of the cluster, as `GET /cluster` of any of them tells."""

    name: str
    role: str
    state: str
    timeline: int


class View(NamedTuple):
    """The cluster at one moment, as one member sees it."""

    members: tuple[Member, ...]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> View:
        """Read the answer of `GET /cluster`."""
        return cls(
            tuple(
                Member(
                    str(member.get("name", "")),
                    str(member.get("role", "")),
                    str(member.get("state", "")),
                    int(member.get("timeline") or 0),
                )
                for member in answer.get("members", ())
            )
        )

    @property
    def leader(self) -> Member | None:
        """The member that holds the lock and runs; None while there is none."""
        return next((member for member in self.members if _leads(member)), None)

    @property
    def synchronous(self) -> str:
        """The name of the synchronous standby that may be promoted, "" while there is none."""
        return next((member.name for member in self.members if _stands_by(member, self.leader)), "")

    def whole(self, count: int) -> bool:
        """Return True if so many members are there, one leads, all others follow it, one of these synchronously."""
        leader = self.leader
        if leader is None or len(self.members) != count or not self.synchronous:
            return False
        others = [member for member in self.members if member is not leader]
        return all(member.state == "streaming" and member.timeline == leader.timeline for member in others)


def _leads(member: Member) -> bool:
    return member.role == "leader" and member.state == "running"


def _stands_by(member: Member, leader: Member | None) -> bool:
    same = leader is not None and member.timeline == leader.timeline
    return same and member.role == "sync_standby" and member.state == "streaming"
