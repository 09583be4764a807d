"""Probes over a whole directory: every published window is scored, and days that are done are not scored again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from naturelm.embeddings.probe_model import Probe
from naturelm.embeddings.vectors import StoredVectors, VectorBatch
from naturelm.errors import NaturelmError
from naturelm.labels import normal_form
from naturelm.results.layout import writes_to
from naturelm.results.probe_files import PROBE_QUERY, ProbeDays, digest_of
from naturelm.results.rows import later
from naturelm.results.schemas import DETECTIONS, EMBEDDINGS, TABLES
from naturelm.segments import Day
from naturelm.tables.query import open_tables


@dataclass
class Applied:
    """What `apply_probes` did.

    Attributes
    ----------
    days, done_before : int
        Days scored, and days that had been.
    windows : int
        Windows scored.
    detections : dict of str to int
        Rows written, by label.
    """

    days: int
    done_before: int
    windows: int
    detections: dict[str, int]


def apply_probes(
    stored: StoredVectors, probes: Sequence[tuple[Path, Probe]], min_score: float | None = None
) -> Applied:
    """Score every window with every probe, in one pass.

    Parameters
    ----------
    stored : StoredVectors
    probes : sequence of (Path, Probe)
        One for each label.
    min_score : float, optional
        Lowest score that becomes a row, in place of each probe's own threshold.

    Raises
    ------
    NaturelmError
        A probe is for other vectors, two are for one label, or the directory cannot be written.
    """
    labels: dict[str, Path] = {}
    for path, probe in probes:
        probe.check_fits(stored, path)
        key = normal_form(probe.label)
        if key in labels:
            raise NaturelmError(f"{labels[key]} and {path} are both for {probe.label!r}; apply one of them")
        labels[key] = path
    with open_tables(stored.directory) as tables:
        recordings = {
            key: rest
            for key, *rest in tables.sql(
                "SELECT recording_id, path, start_local, start_time FROM recordings"
            ).fetchall()
        }
    sources = {day: digest_of(file) for day, file in stored.visible.published[EMBEDDINGS].items()}
    thresholds = [probe.threshold if min_score is None else min_score for _, probe in probes]
    files = [
        # Other rows follow from another threshold.
        ProbeDays(stored.directory, probe.label, f"{probe.id} {threshold:g}")
        for (_, probe), threshold in zip(probes, thresholds, strict=True)
    ]
    due = [day for day, source in sources.items() if not all(own.is_done(day, source) for own in files)]

    def scored(batch: VectorBatch) -> tuple[Day, int, list[pa.Table]]:
        unit = batch.unit_vectors()
        tables = []
        for (_, probe), threshold in zip(probes, thresholds, strict=True):
            scores = np.round(probe.scores(unit), 4)
            chosen = np.flatnonzero(scores >= threshold)
            rows = batch.keys.take(pa.array(chosen)).to_pylist()
            tables.append(
                pa.Table.from_pylist(
                    [
                        {
                            **{
                                name: row[name]
                                for name in ("station", "date", "recording_id", "start_s", "end_s")
                            },
                            "path": recordings[row["recording_id"]][0],
                            "start_local": later(recordings[row["recording_id"]][1], row["start_s"]),
                            "start_time": later(recordings[row["recording_id"]][2], row["start_s"]),
                            "query": PROBE_QUERY,
                            "label": probe.label,
                            "score": float(score),
                            "text": probe.label,
                            "model": f"probe {probe.id} of {probe.encoder}",
                        }
                        for row, score in zip(rows, scores[chosen], strict=True)
                        if row["recording_id"] in recordings
                    ],
                    schema=TABLES[DETECTIONS],
                )
            )
        first = batch.keys.slice(0, 1).to_pylist()[0]
        return Day.on(first["station"], first["date"]), len(unit), tables

    applied = Applied(
        len(due), len(sources) - len(due), 0, dict.fromkeys([probe.label for _, probe in probes], 0)
    )
    parts: dict[Day, list[list[pa.Table]]] = defaultdict(list)
    with writes_to(stored.directory):
        for own in files:
            own.keep_only(set(sources))

        def finish(day: Day) -> None:
            found = parts.pop(day, [])
            for number, (own, (_, probe)) in enumerate(zip(files, probes, strict=True)):
                rows = pa.concat_tables([TABLES[DETECTIONS].empty_table(), *(part[number] for part in found)])
                own.write(day, rows, sources[day])
                applied.detections[probe.label] += rows.num_rows

        last: Day | None = None
        for day, windows, tables_of in stored.map(scored, days=due) if due else ():
            if last is not None and day != last:
                finish(last)
            parts[day].append(tables_of)
            applied.windows += windows
            last = day
        if last is not None:
            finish(last)
    return applied
