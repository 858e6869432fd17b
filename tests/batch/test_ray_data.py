"""The Ray engine, on a cluster of two nodes: real Ray processes on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_batch import (
    FAST,
    Batch,
    add_large,
    batch,
    photos,
    records,
    sorted_lines,
    talk,
)
from tests.conftest import PATIENCE, wait_for

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

pytestmark = pytest.mark.slow

__all__ = ["batch", "photos"]

ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    # A lost node is noticed in seconds, not in half a minute.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "500",
}


def agent_ports() -> dict[str, int]:
    """Free ports for a node's helpers: a node that has to ask for them, on a busy machine, gives up
    before they have started.
    """
    names = (
        "metrics_agent_port",
        "metrics_export_port",
        "dashboard_agent_listen_port",
        "runtime_env_agent_port",
    )
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: s.getsockname()[1] for name, s in zip(names, sockets)}
    for open_socket in sockets:
        open_socket.close()
    return ports


@pytest.fixture
def cluster() -> Iterator[tuple[str, int]]:
    """The address of a cluster of two nodes of one core, and the process of the second's raylet."""
    from ray.cluster_utils import Cluster

    os.environ |= ENVIRONMENT
    nodes = Cluster()
    try:
        try:
            nodes.add_node(num_cpus=1, include_dashboard=False, **agent_ports())
            second = nodes.add_node(num_cpus=1, **agent_ports())
            nodes.wait_for_nodes()
        except Exception as error:
            if "timed out" in str(error):
                pytest.skip("Ray gives up starting on a machine as busy as this")
            raise
        (raylet,) = second.all_processes["raylet"]
        yield nodes.address, raylet.process.pid
    finally:
        nodes.shutdown()


def test_the_same_records_though_a_node_is_lost(
    batch: Batch, photos: Path, tmp_path: Path, cluster: tuple[str, int]
) -> None:
    address, raylet = cluster
    add_large(photos, 60)
    (photos / "bad.jpg").write_text("no picture")
    local = batch("photos", "-o", "local", "--format", "jsonl,parquet")
    assert local.returncode == 1, local.stderr
    command = [
        sys.executable, "-m", "kpipe", "batch", "photos", "-o", "out", "--engine", "ray",
        "--ray-address", address, "--format", "jsonl,parquet", *FAST,
    ]  # fmt: skip
    out = tmp_path / "out"
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as job:
        wait_for(lambda: (out / "faces.jsonl").exists() and sorted_lines(out))
        os.kill(raylet, signal.SIGKILL)
        before = len(sorted_lines(out))
        _, error = job.communicate(timeout=PATIENCE)
    assert job.returncode == 1 and "Traceback" not in error, error
    assert before < 73, "the node was lost too late to matter"
    assert len(records(out)) == 73
    assert sorted_lines(out) == sorted_lines(tmp_path / "local")

    from kpipe.formats import load_format

    parquet = load_format("parquet")
    shards = list(parquet.read(out / "faces.parquet"))
    assert (out / "faces.parquet/part-00000.parquet").is_file()
    assert shards == list(parquet.read(tmp_path / "local/faces.parquet"))
    assert {r["image"]: r for r in shards} == {
        line["image"]: line for line in map(json.loads, sorted_lines(out))
    }
    again = batch("photos", "-o", "out", "--engine", "ray", "--ray-address", address)
    assert "0 done now" in talk(again)


def test_addresses(batch: Batch, photos: Path, tmp_path: Path) -> None:
    done = batch(f"file://{photos}", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert batch("photos", "-o", "plain").returncode == 0
    assert sorted_lines(tmp_path / "out") == sorted_lines(tmp_path / "plain")
    assert "0 done now" in talk(batch(f"file://{photos}", "-o", "out"))


def test_no_cluster_there(batch: Batch, photos: Path) -> None:
    done = batch("photos", "-o", "out", "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert done.returncode == 1
    assert "no Ray cluster at 127.0.0.1:1" in talk(done)
