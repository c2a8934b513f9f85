"""Makes the tables of pgsession, or brings them up to date, where the sessions of this project are."""

from __future__ import annotations

import psycopg
from django.db import DEFAULT_DB_ALIAS, migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from pgsession import schema
from pgsession.contrib.django import configuration


def create(apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create what is missing and upgrade what is older, on a connection of its own."""
    prefix = configuration.read().config.table_prefix
    for place in configuration.places():
        if schema_editor.connection.alias == (place.alias or DEFAULT_DB_ALIAS):
            database = place.database() if callable(place.database) else place.database
            with psycopg.connect(database, autocommit=True) as connection:
                schema.create(connection, place.schema_name, prefix, shard=place.shard)


class Migration(migrations.Migration):
    """Migrates `pgsession.schema`, which does all of it in one transaction and knows what is there.

    Attributes:
        schema_version: The version that it was written for. Each newer one needs a migration of its own, or projects
            that are at this one already would find nothing to do.
    """

    schema_version = 1
    atomic = False
    operations = (
        # Back: nothing. Sessions are not thrown away with an app.
        migrations.RunPython(create, migrations.RunPython.noop),
        migrations.CreateModel(
            name="LiveSession",
            fields=[("id", models.UUIDField(editable=False, primary_key=True, serialize=False))],
            options={
                "verbose_name": "live session",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view", "delete"),
            },
        ),
    )
