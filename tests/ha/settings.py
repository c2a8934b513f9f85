"""How Patroni is configured here: what a reader of docs/patroni.md would set, on one host."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

TTL = 20
"""Seconds after which a leader that says nothing is one no more: the shortest that Patroni takes. Its default is 30."""

SCOPE = "sessions"


class Place(NamedTuple):
    """Where a member of the cluster is."""

    name: str
    folder: Path
    port: int
    """Of PostgreSQL."""
    rest: int
    """Of Patroni's REST API."""
    store: int
    """Of etcd, as this member gets to it."""

    @property
    def data(self) -> Path:
        return self.folder / "data"


def patroni(place: Place, *, programs: Path, password: str) -> dict[str, Any]:
    """Return a member's configuration. It is JSON, too, which is YAML."""
    superuser = {"username": "postgres", "password": password}
    return {
        "scope": SCOPE,
        "name": place.name,
        "restapi": _address(place.rest),
        # Not what etcd says its own address is: the way there is cut at times.
        "etcd3": {"host": f"127.0.0.1:{place.store}", "use_proxies": True},
        "bootstrap": {
            "dcs": _common(),
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "scram-sha-256"}, "data-checksums"],
        },
        "postgresql": {
            **_address(place.port),
            "data_dir": str(place.data),
            "bin_dir": str(programs),
            "pgpass": str(place.folder / "pgpass"),
            "authentication": {"superuser": superuser, "replication": superuser, "rewind": superuser},
            "pg_hba": [
                "host all all 127.0.0.1/32 scram-sha-256",
                "host replication all 127.0.0.1/32 scram-sha-256",
            ],
            "parameters": {"unix_socket_directories": ""},
        },
    }


def _common() -> dict[str, Any]:
    """Return what is of the whole cluster, and kept in etcd."""
    return {
        "ttl": TTL,
        "loop_wait": 2,
        "retry_timeout": 5,
        "synchronous_mode": True,
        "postgresql": {
            "use_pg_rewind": True,
            "parameters": {"max_connections": 200, "shared_buffers": "32MB", "checkpoint_timeout": "15min"},
        },
    }


def _address(port: int) -> dict[str, str]:
    return {"listen": f"127.0.0.1:{port}", "connect_address": f"127.0.0.1:{port}"}


def etcd(folder: Path, client: int, peer: int) -> list[str]:
    """Return the arguments of an etcd of one member: it is not what is put to the test."""
    clients, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return [
        f"--data-dir={folder / 'data'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    ]
