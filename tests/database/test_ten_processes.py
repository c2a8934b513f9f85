"""Ten processes that start at once on an empty database all come up, and see each other's sessions."""

from __future__ import annotations

import subprocess
import sys

_NODE = """
import sys
import pgsession
config = pgsession.Config(create_schema_if_missing=True, schema_name=sys.argv[2], max_sessions=0)
with pgsession.SessionManager(sys.argv[1], config) as sessions:
    print("open", flush=True)
    sys.stdin.readline()
    sessions.create_session("u")
    print(len(sessions.list_user_sessions("u")), flush=True)
"""


def test_ten_processes_at_once(dsn: str, schema: str) -> None:
    nodes = [
        subprocess.Popen(
            [sys.executable, "-c", _NODE, dsn, schema],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(10)
    ]
    seen = []
    for node in nodes:
        output, errors = node.communicate("\n", timeout=60)
        assert node.returncode == 0, errors
        opened, count = output.split()
        assert opened == "open"
        seen.append(int(count))
    assert max(seen) == 10
