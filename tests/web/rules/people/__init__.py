"""The users of Django's site, who are in no database: everybody is known by name."""

from __future__ import annotations

from typing import Any


class Everybody:
    """An authentication backend."""

    def get_user(self, name: str) -> Any:
        from tests.web.rules.people.models import Person

        return Person(name=name)

    async def aget_user(self, name: str) -> Any:
        return self.get_user(name)
