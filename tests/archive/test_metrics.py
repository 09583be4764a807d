"""A run's figures where Prometheus finds them: at the metrics port of a Ray node."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Mapping

import pytest

from naturelm.archive.figures import Figures
from naturelm.archive.progress import Progress


def exported(host: str, port: int) -> dict[str, float]:
    """`name` or `name stage`, and the value, of this program's metrics."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if match := re.fullmatch(r"ray_naturelm_(\w+)\{(.*)\} (\S+)", line):
            stage = re.search(r'stage="([^"]*)"', match[2])
            found[match[1] + (f" {stage[1]}" if stage else "")] = float(match[3])
    return found


@pytest.mark.ray
def test_figures_are_exported_through_ray(local_ray) -> None:
    import ray

    from naturelm.archive.backends.ray_metrics import Metrics

    shown = Figures(
        sound_s=1200.0,
        total_s=36_000.0,
        times_real_time=34.5,
        windows=120,
        gated=7,
        detections=55,
        failed=2,
        queues={"to decode": 12, "to answer": 3},
    )

    class Shown(Progress):
        cluster: Mapping[str, float]
        figures = shown

        def show_cluster(self, cluster: Mapping[str, float]) -> None:
            self.cluster = cluster

    progress = Shown()
    Metrics().show(progress)
    assert progress.cluster == {"nodes": 1, "cpus": 2, "gpus": 0}
    (node,) = ray.nodes()
    expected = {
        "sound_s": 1200,
        "total_s": 36_000,
        "times_real_time": 34.5,
        "windows": 120,
        "gated": 7,
        "detections": 55,
        "failed": 2,
        "queue to decode": 12,
        "queue to answer": 3,
    }
    # Ray hands them on every ten seconds.
    deadline = time.monotonic() + 60
    while (found := exported(node["NodeManagerAddress"], node["MetricsExportPort"])) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


@pytest.mark.ray
def test_queues_are_counted_while_ray_works(local_ray, monkeypatch) -> None:
    import ray.data

    from naturelm.archive.backends.ray_metrics import QueueWatch

    def _decode(batch):
        time.sleep(0.2)
        return batch

    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [QueueWatch])
    slow = ray.data.from_items(list(range(12)), override_num_blocks=12).map_batches(_decode, num_cpus=1)
    depths = [QueueWatch.depths["to decode"] for _ in slow.iter_batches(batch_size=None, prefetch_batches=0)]
    assert len(depths) == 12
    assert max(depths) >= 2
    assert QueueWatch.depths["to decode"] == 0
