"""A child of a fork and the listener of its parent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, threading
from pgsession._sync.listener import Listener
from pgsession.errors import ListenerError

heard = threading.Event()
listener = Listener(sys.argv[1])
listener.open()
listener.listen("news", lambda notification: heard.set())
pid = listener.pid
child = os.fork()
if child == 0:
    assert not listener.connected
    listener.reconnect()
    try:
        listener.execute("SELECT 1")
    except ListenerError:
        listener.close()
        sys.exit(0)  # not os._exit: whatever the interpreter destroys at its end must not reach the parent
    sys.exit(1)
assert os.waitpid(child, 0)[1] == 0
listener.notify("news")
assert heard.wait(20)
assert listener.pid == pid
listener.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_cannot_use_or_harm_it(dsn: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, dsn], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
