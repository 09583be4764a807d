"""Training on Ray Train, workers dying included."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from naturelm.errors import NaturelmError
from naturelm.training.store import RunStore
from tests.training.runs import config, losses, run

pytestmark = pytest.mark.ray


class KillsAWorker(threading.Thread):
    """Kills one of this process's training workers with SIGKILL once the run has a checkpoint."""

    def __init__(self, storage: object) -> None:
        super().__init__(daemon=True)
        self.killed_at: int | None = None
        self._store = RunStore(str(storage))

    def run(self) -> None:
        while not self._store.latest():
            time.sleep(0.02)
        # Ray names its processes by what they do; those of this test descend from this process.
        workers = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in p.cmdline()[0]]
        self.killed_at = self._store.latest()
        workers[-1].kill()


@pytest.mark.slow
def test_two_workers_one_of_them_killed_give_the_curve_of_one_process(
    shape, manifest, tmp_path, local_ray, monkeypatch
):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # At a higher rate AdamW makes the rounding of sums in another order grow within so many steps.
    changes = {"optimisation": {"steps": 120, "peak_lr": 1e-3, "end_lr": 5e-4}}
    run(config(shape, manifest, tmp_path / "one", run={"checkpoint_every": 10}, **changes))
    killer = KillsAWorker(tmp_path / "two")
    killer.start()
    run(
        config(
            shape,
            manifest,
            tmp_path / "two",
            run={"checkpoint_every": 10, "ray": True, "workers": 2},
            **changes,
        )
    )
    assert killer.killed_at is not None
    assert killer.killed_at < 120
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two.keys() == one.keys()
    assert list(two.values()) == pytest.approx(list(one.values()), abs=1e-4)
    # What one worker wrote after the kill was taken back and done again by a new one.
    assert RunStore(str(tmp_path / "two")).steps() == [110, 120]


def test_more_workers_than_the_cluster_holds_are_refused(shape, manifest, tmp_path, local_ray):
    with pytest.raises(NaturelmError, match="8 workers are more than the 4 that this cluster can run"):
        run(config(shape, manifest, tmp_path, optimisation={"batch": 8}, run={"ray": True, "workers": 8}))
