"""The processes of a cluster are those that stand in its folder, whoever started them.

As a program, `python -m tests.ha.processes FOLDER`, it waits for the end of its input, which comes also when the one
who started it was killed; then it ends all these processes, stopped ones too, and removes the folder.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil


def below(folder: Path, *, besides: Path | None = None) -> list[psutil.Process]:
    """Return the processes whose working folder is this one or below it, the oldest first."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            where = Path(process.cwd())
            if where.is_relative_to(folder) and not (besides and where.is_relative_to(besides)):
                found.append((process.create_time(), process.pid, process))
    return [process for *_, process in sorted(found)]


def send(number: signal.Signals, folder: Path, *, besides: Path | None = None) -> int:
    """Send a signal to all of them; return their number. Who starts others gets it before these."""
    sent = 0
    for process in below(folder, besides=besides):
        with suppress(psutil.Error):
            process.send_signal(number)
            sent += 1
    return sent


def end(folder: Path, patience: float = 10) -> None:
    """End all of them, at once; raise TimeoutError if some are still there after `patience` seconds."""
    until = time.monotonic() + patience
    while send(signal.SIGKILL, folder):
        if time.monotonic() > until:
            raise TimeoutError(f"these do not end: {below(folder)}")
        time.sleep(0.05)


def main() -> None:
    folder = Path(sys.argv[1])
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # of the terminal: whoever started us comes to an end by itself
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    end(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
