"""What Ray knows of a run: blocks that wait for a stage, nodes, and the figures that Prometheus asks Ray for."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, ClassVar

import ray
from ray.util.metrics import Gauge

from naturelm.archive.progress import Progress

if TYPE_CHECKING:
    from ray.data import DataContext

_LOG = logging.getLogger(__name__)

# Private in ray 2.60, and without a public counterpart: this class, `_topology` and what hangs on it. Only what the
# progress shows of queues depends on them.
try:
    from ray.data._internal.execution.execution_callback import ExecutionCallback as _ExecutionCallback
except ImportError:
    _ExecutionCallback = object


def watch_queues(context: DataContext) -> None:
    """Have Ray Data call `QueueWatch`; where this version of Ray cannot, the log reports it once."""
    if _ExecutionCallback is not object and hasattr(context, "custom_execution_callback_classes"):
        context.custom_execution_callback_classes = [QueueWatch]
    else:
        QueueWatch.give_up()


class QueueWatch(_ExecutionCallback):
    """Counts what waits for each stage or is in it, in blocks; Ray Data calls it as it schedules."""

    depths: ClassVar[dict[str, int]] = {"to decode": 0, "to answer": 0}
    """Blocks by stage; empty where this version of Ray does not show them."""

    def on_execution_step(self, executor: Any) -> None:
        if not self.depths:
            return
        try:
            for operator, state in executor._topology.items():
                for stage, name in (("to decode", "_decode"), ("to answer", "_AskActor")):
                    if name in operator.name:
                        self.depths[stage] = state.total_enqueued_input_blocks() + operator.num_active_tasks()
        except (AttributeError, TypeError):
            self.give_up()

    @classmethod
    def give_up(cls) -> None:
        """Count nothing from now on; the log reports it the first time."""
        if cls.depths:
            _LOG.warning("Ray %s does not show its queues: progress leaves them out", ray.__version__)
        cls.depths.clear()


class Metrics:
    """The run's figures for Prometheus, which asks every Ray node; Ray puts `ray_` before the names."""

    _EVERY_S = 5.0
    _GAUGES: ClassVar[dict[str, str]] = {
        "sound_s": "Seconds of sound that this run has answered.",
        "total_s": "Seconds of sound that this run is to answer.",
        "times_real_time": "Seconds of sound per second, over the last ten minutes.",
        "windows": "Windows that this run has committed.",
        "gated": "Windows of those that the gate kept from the model.",
        "detections": "Detections that this run has committed.",
        "failed": "Recordings of this run that are not ok.",
    }

    def __init__(self) -> None:
        self._gauges = {name: Gauge(f"naturelm_{name}", said) for name, said in self._GAUGES.items()}
        self._queue = Gauge("naturelm_queue", "Blocks that wait for a stage or are in it.", ("stage",))
        self._shown = -self._EVERY_S

    def show(self, progress: Progress) -> None:
        """Export the figures, and have the progress show the cluster; now and then, however often it is called."""
        if time.monotonic() - self._shown < self._EVERY_S:
            return
        self._shown = time.monotonic()
        progress.show_cluster(_cluster())
        figures = progress.figures
        for name, gauge in self._gauges.items():
            gauge.set(getattr(figures, name))
        for stage, depth in figures.queues.items():
            self._queue.set(depth, {"stage": stage})


def _cluster() -> dict[str, float]:
    """Nodes that are alive, and what they have for this run and others."""
    resources = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    return {"nodes": nodes, "cpus": resources.get("CPU", 0), "gpus": resources.get("GPU", 0)}
