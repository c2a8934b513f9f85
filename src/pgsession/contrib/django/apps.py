"""Django finds the app here."""

from __future__ import annotations

from django.apps import AppConfig

from pgsession.contrib.django import configuration


class PgSessionConfig(AppConfig):
    """Makes the tables by its migration, checks the settings, and has the page of live sessions in the admin."""

    name = "pgsession.contrib.django"
    label = "pgsession"
    verbose_name = "Sessions"
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        """Register the checks, and note which databases there are."""
        from pgsession.contrib.django import checks  # noqa: F401

        configuration.remember_names()
