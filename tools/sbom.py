"""Writes the SBOM (CycloneDX) of an installation of a wheel: `python tools/sbom.py WHEEL OUTPUT`.

Run by a Python that the wheel fits and that has the package cyclonedx-bom.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def write(wheel: Path, output: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pgsession-sbom-") as folder:
        venv.create(folder, with_pip=True)
        python = next(
            path for path in (Path(folder, "bin/python"), Path(folder, "Scripts/python.exe")) if path.exists()
        )
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[binary]"], check=True)
        subprocess.run(
            [python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip", "setuptools"], check=True
        )
        command = [
            sys.executable,
            "-m",
            "cyclonedx_py",
            "environment",
            "--pyproject",
            str(ROOT / "pyproject.toml"),
        ]
        command += ["--output-reproducible", "--output-file", str(output), str(python)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
