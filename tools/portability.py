"""`make portability`: compiles the core and the decisions, and our headers by the strictest rules, for other systems.

The compiler is `zig cc`, which brings the C library of each system. Python's headers are this machine's, with a
pyconfig.h that tells the truth of the other system: on the same Linux this one's own, for Windows and macOS ours. So a
call that a system lacks, a GNU extension, or an assumption about sizes is found here; linking and running are not
tried. Besides, this machine's C must not need `__int128`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "cython" / "pgsession" / "_core"
WORK = ROOT / ".cache" / "portability"
GENERATED = ROOT / "build" / "cython"
CONFIGURATIONS = ROOT / "tools" / "portability"

# zig's name of the system, and what its pyconfig.h is like.
TARGETS = {
    "aarch64-linux-gnu.2.28": None,
    "aarch64-linux-musl": None,
    "s390x-linux-gnu.2.28": "big-endian.h",  # no wheel is promised for it; the order of bytes is
    "aarch64-macos.11.0": "macos.h",
    "x86_64-windows-gnu": "windows.h",
    "aarch64-windows-gnu": "windows.h",
}
STRICT = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wno-unused-function",
    "-pedantic-errors",
    "-Werror",
    "-U__SIZEOF_INT128__",
]
GENERATED_CODE = ["-O0", "-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types", "-w"]


def main() -> int:
    modules = [*CORE.glob("*.pyx"), *ROOT.glob("src/pgsession/**/*.pxd")]
    sources = sorted(GENERATED / module.relative_to(ROOT).with_suffix(".c") for module in modules)
    missing = [source.name for source in sources if not source.exists()]
    if missing:
        raise SystemExit(f"not generated yet: {', '.join(missing)}; run `make build`")
    failed = [target for target in TARGETS if not compile_for(target, sources)]
    return 1 if failed else 0


def compile_for(target: str, sources: list[Path]) -> bool:
    headers = python_headers(target)
    strict = WORK / target / "headers.c"
    includes = "".join(f'#include "{header.name}"\n' for header in sorted(CORE.glob("*.h")))
    strict.write_text(f"#include <Python.h>\n{includes}int pgs_not_empty;\n")
    good = zig(target, headers, strict, STRICT)
    for source in sources:
        good = zig(target, headers, source, GENERATED_CODE) and good
    print(f"{target:<26}{'ok' if good else 'FAILED'}", flush=True)
    return good


def zig(target: str, headers: Path, source: Path, options: list[str]) -> bool:
    output = WORK / target / f"{source.stem}.o"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-c", *options]
    command += ["-isystem", str(headers), "-I", str(CORE), str(source), "-o", str(output)]
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(WORK / "zig"), "ZIG_LOCAL_CACHE_DIR": str(WORK / "zig")}
    done = subprocess.run(command, env={**os.environ, **cache}, capture_output=True, text=True)
    if done.returncode:
        print(f"{source.name} for {target}:\n{done.stderr[:4000]}", flush=True)
    return done.returncode == 0


def python_headers(target: str) -> Path:
    """This Python's headers, with the pyconfig.h of the target."""
    headers = WORK / target / "include"
    shutil.rmtree(headers, ignore_errors=True)
    shutil.copytree(sysconfig.get_path("include"), headers)
    configuration = TARGETS[target]
    if configuration is not None:
        (headers / "pyconfig.h").rename(headers / "pyconfig_here.h")
        shutil.copy(CONFIGURATIONS / configuration, headers / "pyconfig.h")
    return headers


if __name__ == "__main__":
    sys.exit(main())
