"""What the newest run into an output directory is doing, read from its record by any other process."""

from __future__ import annotations

import datetime as dt
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from naturelm.archive.figures import Figures
from naturelm.errors import NaturelmError
from naturelm.machine import Gpu, process_exists
from naturelm.results.analysis import check_version
from naturelm.results.run_records import UPDATE_EVERY_S, read_records
from naturelm.storage import Location

# A record that is older belongs to a run that died, or whose disk or network did.
_SILENT_AFTER_S = 4 * UPDATE_EVERY_S

State = Literal["running", "complete", "interrupted", "died", "silent"]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run according to its record.

    Attributes
    ----------
    state : {"running", "complete", "interrupted", "died", "silent"}
        `died`: its process is gone without a message. `silent`: its last sign of life is old; only the machine
        that it was started on knows what became of it.
    host : str
    pid : int
        Where it was started, and the driver's process there.
    started : datetime
    last_sign : datetime
        When it last wrote its record; the end of a run that is over.
    figures : Figures or None
        How far it had come then; None before its first.
    record : dict
        The whole record.
    """

    state: State
    host: str
    pid: int
    started: dt.datetime
    last_sign: dt.datetime
    figures: Figures | None
    record: dict[str, Any]


def newest_run(directory: Location) -> RunStatus:
    """Read the newest run's record.

    Raises
    ------
    NaturelmError
        There are no results, or no run has left a record that can be read.
    """
    check_version(directory)
    for record in read_records(directory):
        # A record that is damaged says nothing; the one before it may.
        with suppress(KeyError, TypeError, ValueError):
            return _status(record)
    raise NaturelmError(
        f"{directory}: holds no run's record that can be read; run naturelm process with this --out again"
    )


def _status(record: dict[str, Any]) -> RunStatus:
    started = dt.datetime.fromisoformat(record["started"])
    last_sign = dt.datetime.fromisoformat(
        record.get("finished") or record.get("updated") or record["started"]
    )
    host, pid = str(record["host"]), int(record["pid"])
    state: State = record["status"]
    if state == "running":
        if host == socket.gethostname() and not process_exists(pid):
            state = "died"
        elif (dt.datetime.now(dt.UTC) - last_sign).total_seconds() > _SILENT_AFTER_S:
            state = "silent"
    elif state not in ("complete", "interrupted"):
        raise ValueError(f"status is {state!r}")
    figures = None
    if "progress" in record:
        gpus = tuple(Gpu(**gpu) for gpu in record["progress"]["gpus"])
        figures = Figures(**record["progress"] | {"gpus": gpus})
    return RunStatus(state, host, pid, started, last_sign, figures, record)
