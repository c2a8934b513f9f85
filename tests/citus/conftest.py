"""Shards in the cluster that `PGSESSION_CITUS_DSN` names, and what moves them; skipped without."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.citus.cluster import DSN, WHY_NOT, CitusCluster

SHARDS = 2


@pytest.fixture
def cluster() -> Iterator[CitusCluster]:
    if not DSN:
        pytest.skip(WHY_NOT)
    cluster = CitusCluster(DSN, f"pgsession_{secrets.token_hex(4)}", SHARDS)
    yield cluster
    cluster.close()
