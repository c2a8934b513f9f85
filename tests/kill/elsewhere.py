"""python -m tests.kill.elsewhere: with musl, with the oldest glibc that is supported, and on an emulated ARM64.

The compiler is `zig cc`, which brings the C libraries. With musl and glibc on this machine's processor all is run as it
is. ARM64 is run by qemu's user mode, where that is installed: it shows that the build and the logic are right there, no
more. It has no robust mutexes, so nobody can be killed in it, and the order in which it shows writes is this machine's:
see tests/litmus.
"""

from __future__ import annotations

import platform
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.kill.programs import compiled, kill_run

SECONDS = 10
ARM_LIBRARIES = "/usr/aarch64-linux-gnu"  # where Debian's packages for cross compilers are
NATIVE = ("x86_64-linux-musl", "x86_64-linux-gnu.2.28")
EMULATED = ("aarch64-linux-musl", "aarch64-linux-gnu.2.28")


def main() -> int:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        print("a shared cache is not run elsewhere: for that this has to be Linux on x86-64")
        return 0
    seed = random.randrange(2**32)
    with tempfile.TemporaryDirectory(prefix="pgsession-elsewhere-") as folder:
        failed = [target for target in NATIVE if not goes_well(target, Path(folder), seed)]
        emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
        for target in EMULATED:
            if emulator is None:
                print(f"{target:<26}not run: qemu-aarch64 (Debian's qemu-user) is not installed")
            elif "gnu" in target and not Path(ARM_LIBRARIES, "lib", "libgcc_s.so.1").exists():
                print(f"{target:<26}not run: its C library (Debian's libgcc-s1-arm64-cross) is not installed")
            elif not goes_well(target, Path(folder), seed, (emulator, "-L", ARM_LIBRARIES)):
                failed.append(target)
    return len(failed) > 0


def goes_well(target: str, folder: Path, seed: int, emulator: tuple[str, ...] = ()) -> bool:
    """Build both programs and run them; return False where a step fails, or a rule is broken."""
    command = (sys.executable, "-m", "ziglang", "cc", "-target", target)
    options = ("-O2", *(("-DEMULATED",) if emulator else ()), *(("-static",) if "musl" in target else ()))
    steps, kill = (
        compiled(program, folder, options=options, command=command) for program in ("steps.c", "kill.c")
    )
    run = subprocess.run([*emulator, steps], capture_output=True, text=True, timeout=300, check=False)
    good = run.returncode == 0 and run.stdout == "0 failed\n"
    processes, one_in = (1, 0) if emulator else (4, 5000)
    outcome = kill_run(
        kill, seconds=SECONDS, seed=seed, processes=processes, crashes_one_in=one_in, under=emulator
    )
    good = good and not outcome.violations and outcome.figures["from L2"] > 0
    reads, killed = outcome.figures["reads"], outcome.figures["killed inside"]
    what = "emulated, nobody killed" if emulator else f"{killed} killed inside"
    print(f"{target:<26}{'ok' if good else 'FAILED'}: {what}, {reads} reads, seed {seed}", flush=True)
    if not good:
        print(run.stdout, run.stderr, outcome.said, outcome.figures)
    return good


if __name__ == "__main__":
    sys.exit(main())
