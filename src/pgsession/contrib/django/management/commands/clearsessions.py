"""`manage.py clearsessions` is Django's own, for projects that have taken `django.contrib.sessions` out."""

from __future__ import annotations

from django.contrib.sessions.management.commands.clearsessions import Command

__all__ = ["Command"]
