"""A run's metrics while it trains: rows beside the checkpoints, and TensorBoard's files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from naturelm.storage import write_whole
from naturelm.training.store import RunStore

_WRITE_EVERY_S = 5.0


class MetricsLog:
    """Collects rows and writes them to the run's storage every few seconds.

    Parameters
    ----------
    store
        The run's storage.
    since
        Step of the checkpoint that the run resumes from: later rows of an earlier run are removed.
    on_row
        Called with each row.
    """

    def __init__(
        self, store: RunStore, since: int, on_row: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self._store, self._since, self._on_row = store, since, on_row
        self._rows: list[dict[str, Any]] = []
        self._written_at = 0.0
        store.forget_metrics(since)
        # TensorBoard's files grow, and files in an object store cannot: there they are written again with checkpoints.
        self._board_place = store.root / "tensorboard"
        on_disk = isinstance(self._board_place, Path)
        self._aside = None if on_disk else tempfile.TemporaryDirectory(prefix="naturelm-tensorboard-")
        directory = self._aside.name if self._aside else self._board_place
        self._board = SummaryWriter(str(directory), purge_step=since + 1 if since else None)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row: `step` and numbers by name."""
        self._rows.append(row)
        for name, value in row.items():
            if name != "step":
                held_out = name.startswith("held_out_")
                board_name = f"held_out/{name.removeprefix('held_out_')}" if held_out else f"train/{name}"
                self._board.add_scalar(board_name, value, row["step"])
        if self._on_row:
            self._on_row(row)
        if time.monotonic() - self._written_at > _WRITE_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write the rows collected so far."""
        if self._rows:
            self._store.write_metrics(self._since, self._rows)
        self._written_at = time.monotonic()

    def next_part(self, since: int) -> None:
        """After a checkpoint at step `since`: later rows go into a new file."""
        self._since, self._rows = since, []
        self._put_board()

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        self._put_board()
        self._board.close()
        if self._aside:
            self._aside.cleanup()

    def _put_board(self) -> None:
        self._board.flush()
        if self._aside:
            for path in Path(self._aside.name).iterdir():
                write_whole(self._board_place / path.name, path.read_bytes())
