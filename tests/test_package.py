"""The wheel, installed where there is no checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import GROUP, ROOT

pytest.importorskip("hatchling")

NAMES = ("proposals", "face_classifier", "coarse_landmarks", "landmarks")
NETWORKS = [f"models/{name}.onnx" for name in NAMES]


@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run([*pip, *build], check=True, cwd=tmp_path)
    wheel = next(tmp_path.glob("kpipe-*.whl"))
    assert wheel.stat().st_size < 15e6
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    for name in ("models/CARD.md", "haarcascades/README.md", "py.typed", *NETWORKS):
        assert (site / "kpipe" / name).exists()
    assert (site / "kpipe" / "models" / "CARD.md").stat().st_size > 1000

    script = "import kpipe.cli; print(kpipe.__file__); kpipe.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "annotate", str(GROUP), "-o", "out.jpg"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert (tmp_path / "out.jpg").exists()
