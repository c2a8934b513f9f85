"""Django's admin and its permissions want a model of what they show; this one has no table."""

from __future__ import annotations

from uuid import UUID

from django.db import models


class LiveSession(models.Model):
    """Stands for a live session: who may view or delete these may look at all sessions, or end them."""

    id: models.UUIDField[UUID, UUID] = models.UUIDField(primary_key=True, editable=False)

    class Meta:
        """Says that there is no table to make, and nothing to add or change."""

        managed = False
        default_permissions = ("view", "delete")
        verbose_name = "live session"

    def __str__(self) -> str:
        return str(self.id)
