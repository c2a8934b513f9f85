"""What Django's engines keep in its table is read as they have written it."""

from __future__ import annotations

import pytest

pytest.importorskip("django")

from tests.web.moving.django_site import AFTER, command


def test_the_rows_of_djangos_table(django_dsn: str) -> None:
    status, said = command(django_dsn, AFTER, "tests.web.moving.django_script")
    assert status == 0, said
