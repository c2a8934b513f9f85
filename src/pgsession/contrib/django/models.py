"""Django's admin and its permissions want a model of what they show; this one has no table."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.db import models

if TYPE_CHECKING:
    _Base = models.Manager["LiveSession"]
else:
    _Base = models.Manager


class Nothing(_Base):
    """Finds nothing, without a query, for whatever goes through all models, such as `manage.py dumpdata`."""

    def get_queryset(self) -> models.QuerySet[LiveSession]:
        """Return an empty set."""
        return super().get_queryset().none()


class LiveSession(models.Model):
    """Stands for a live session: who may view or delete these may look at all sessions, or end them."""

    id: models.UUIDField[UUID, UUID] = models.UUIDField(primary_key=True, editable=False)
    objects: Nothing = Nothing()

    class Meta:
        """Says that there is no table to make, and nothing to add or change."""

        managed = False
        base_manager_name = "objects"
        default_permissions = ("view", "delete")
        verbose_name = "live session"

    def __str__(self) -> str:
        return str(self.id)
