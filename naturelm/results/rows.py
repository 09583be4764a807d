"""From answers to rows: one Arrow table per table name for each segment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, repeat
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from naturelm.audio.marks import Marks
from naturelm.config.archive import Query
from naturelm.labels import normal_form, parse_labels, rounded, span_score
from naturelm.models.answer import Answer
from naturelm.recordings import Recording
from naturelm.results.schemas import (
    ANSWERS,
    CAPTIONS,
    DETECTIONS,
    EMBEDDINGS,
    RECORDINGS,
    TABLES,
    VECTOR_TABLES,
)
from naturelm.results.statuses import STATUSES
from naturelm.segments import Day, Segment
from naturelm.windows import Window

MARKS = (
    "zeros_s",
    "zeros_end_s",
    "nonfinite_s",
    "clipped_share",
    "dc",
    "channels_inverted",
    "channel_dead",
)
"""Columns of `recordings` that mark what is wrong with the sound, see `naturelm.audio.marks`."""


@dataclass(frozen=True, slots=True)
class AnsweredSegment:
    """What became of a segment.

    Attributes
    ----------
    segment : Segment
        The unit of work.
    windows : tuple of Window
        The windows that held sound; fewer than planned where the recording ended early.
    answers : tuple of tuple of Answer
        Per window, per query.
    decoded_s : float
        Seconds decoded of the segment's own span.
    status : str
        One of `STATUSES`; or `UNREACHABLE`, and the segment has no rows.
    error : str or None
        What was wrong, in one sentence.
    gated : tuple of bool
        Per window: the gate kept it from the model, and it has no answers. Empty where there is no gate.
    marks : Marks, optional
        What is wrong with the sound of the segment's own span, where some of it was decoded.
    vectors : array, float16 [windows, width], optional
        Embeddings of the windows that the gate let pass, where they are kept.
    """

    segment: Segment
    windows: tuple[Window, ...]
    answers: tuple[tuple[Answer, ...], ...]
    decoded_s: float
    status: str
    error: str | None
    gated: tuple[bool, ...] = ()
    marks: Marks | None = None
    vectors: NDArray[np.float16] | None = None


def unread(segment: Segment) -> AnsweredSegment:
    """The result of a segment that holds no window: its recording's header already says why."""
    recording = segment.recording
    decoded_s = (recording.duration_s or 0.0) if recording.status == "too_short" else 0.0
    return AnsweredSegment(segment, (), (), decoded_s, recording.status, recording.error)


def segment_tables(answered: AnsweredSegment, queries: Sequence[Query], model: str) -> dict[str, pa.Table]:
    """Turn what became of a segment into rows for every table."""
    recording = answered.segment.recording
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    rows[RECORDINGS].append(_recording_columns(answered))
    gated = answered.gated or (False,) * len(answered.windows)
    for window, per_query, is_gated in zip(answered.windows, answered.answers, gated, strict=True):
        span = {
            "recording_id": recording.recording_id,
            "start_s": window.start_s,
            "end_s": window.end_s,
            "start_local": later(recording.start_local, window.start_s),
            "start_time": later(recording.start_time, window.start_s),
        }
        if is_gated:
            rows[ANSWERS].extend(
                span | {"window": window.index, "query": query.id, "prompt": query.prompt, "gated": True}
                for query in queries
            )
            continue
        for query, answer in zip(queries, per_query, strict=True):
            rows[ANSWERS].append(
                span
                | {
                    "window": window.index,
                    "query": query.id,
                    "prompt": query.prompt,
                    "text": answer.text,
                    "tokens": len(answer.token_ids),
                    "score": rounded(answer.score),
                    "gated": False,
                }
            )
            table, column, named = _labelled(query, answer)
            rows[table].extend(
                span
                | {
                    "path": recording.path,
                    "query": query.id,
                    column: name,
                    "score": rounded(score),
                    "text": answer.text,
                    "model": model,
                }
                for name, score in named
            )
    first = _day_columns(recording)
    return {
        name: pa.Table.from_pylist([first | row for row in rows[name]], schema=schema)
        for name, schema in TABLES.items()
    }


def vector_tables(answered: AnsweredSegment) -> dict[str, pa.Table]:
    """Turn what became of a segment into rows for the tables of embeddings."""
    recording = answered.segment.recording
    first = _day_columns(recording)
    kept = list(compress(answered.windows, [not gated for gated in answered.gated] or repeat(True)))
    vectors = answered.vectors
    rows = [
        first
        | {
            "recording_id": recording.recording_id,
            "window": window.index,
            "start_s": window.start_s,
            "end_s": window.end_s,
        }
        for window in kept
    ]
    schema = VECTOR_TABLES[EMBEDDINGS]
    if rows and vectors is not None:
        schema = schema.set(
            schema.get_field_index("vector"),
            pa.field("vector", vector_type(vectors.shape[1]), nullable=False),
        )
        keys = pa.Table.from_pylist(rows, schema=schema.remove(schema.get_field_index("vector")))
        embeddings = keys.append_column(schema.field("vector"), vector_array(vectors))
    else:
        embeddings = schema.empty_table()
    return {
        RECORDINGS: pa.Table.from_pylist(
            [first | _recording_columns(answered)], schema=VECTOR_TABLES[RECORDINGS]
        ),
        EMBEDDINGS: embeddings,
    }


def vector_type(width: int) -> pa.DataType:
    """Type of the column `vector` in files; without nulls it is read faster."""
    return pa.list_(pa.field("element", pa.float16(), nullable=False), width)


def vector_array(vectors: NDArray[np.float16]) -> pa.Array:
    """Vectors ``[windows, width]`` as an array of that type."""
    values = pa.array(np.ascontiguousarray(vectors, np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, type=vector_type(vectors.shape[1]))


def _day_columns(recording: Recording) -> dict[str, Any]:
    day = Day.of(recording)
    return {"station": day.station, "date": day.as_date()}


def _recording_columns(answered: AnsweredSegment) -> dict[str, Any]:
    """The `recordings` row of a segment, without its day."""
    recording = answered.segment.recording
    return {
        "recording_id": recording.recording_id,
        "path": recording.path,
        "start_local": recording.start_local,
        "start_time": recording.start_time,
        "start_time_source": recording.start_time_source,
        "utc_offset_minutes": recording.utc_offset_minutes,
        "latitude": recording.latitude,
        "longitude": recording.longitude,
        "deployment": recording.deployment,
        "duration_s": recording.duration_s,
        "decoded_s": answered.decoded_s,
        "sample_rate_hz": recording.sample_rate_hz,
        "channels": recording.channels,
        "format": recording.format,
        "status": answered.status,
        "error": answered.error,
        "windows": len(answered.windows),
    } | _mark_columns(answered.marks, answered.decoded_s)


def reduce_recordings(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One `recordings` row from those of a recording's segments, in order of their first windows.

    Zeros at the end of the recording and samples that are no numbers are marked, and are not seconds decoded.
    """
    worst = max(parts, key=lambda row: STATUSES.index(row["status"]))
    decoded_s = sum(row["decoded_s"] for row in parts)
    marks = _reduced_marks(parts)
    nothing_s = (marks["zeros_end_s"] or 0.0) + (marks["nonfinite_s"] or 0.0)
    return (
        parts[0]
        | {
            "decoded_s": max(decoded_s - nothing_s, 0.0) if nothing_s else decoded_s,
            "windows": sum(row["windows"] for row in parts),
            "status": worst["status"],
            "error": worst["error"],
        }
        | marks
    )


def _mark_columns(marks: Marks | None, decoded_s: float) -> dict[str, Any]:
    """The marks of a segment: those of its whole seconds, within what was decoded of it."""
    if marks is None:
        return dict.fromkeys(MARKS)
    columns = {name: getattr(marks, name) for name in MARKS}
    for name in ("zeros_s", "zeros_end_s", "nonfinite_s"):
        columns[name] = min(columns[name], decoded_s)
    if marks.is_all_zeros:
        columns["zeros_s"] = columns["zeros_end_s"] = decoded_s
    return columns


def _reduced_marks(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    measured = [row for row in parts if row.get("zeros_s") is not None]
    if not measured:
        return dict.fromkeys(MARKS)
    seconds = sum(row["decoded_s"] for row in measured)
    zeros_end_s = 0.0
    for row in reversed(measured):
        zeros_end_s += row["zeros_end_s"]
        if row["zeros_end_s"] < row["decoded_s"]:
            break
    dead = [row["channel_dead"] for row in measured if row["channel_dead"] is not None]
    return {
        "zeros_s": round(sum(row["zeros_s"] for row in measured), 6),
        "zeros_end_s": round(zeros_end_s, 6),
        "nonfinite_s": round(sum(row["nonfinite_s"] for row in measured), 6),
        **{
            name: round(sum(row[name] * row["decoded_s"] for row in measured) / seconds, 6)
            if seconds
            else None
            for name in ("clipped_share", "dc")
        },
        "channels_inverted": any(row["channels_inverted"] for row in measured),
        "channel_dead": min(dead, default=None),
    }


def _labelled(query: Query, answer: Answer) -> tuple[str, str, list[tuple[str, float]]]:
    """What an answer says: the table it goes to, the column, and (text, score) pairs."""
    if query.kind == "caption":
        nothing = not parse_labels(answer.text)
        return CAPTIONS, "caption", [] if nothing else [(answer.text, answer.score)]
    if query.kind == "classification":
        best = answer.candidates[: query.top_k]
        return DETECTIONS, "label", [(name, p) for name, p in best if normal_form(name) != "none"]
    named = []
    for label in parse_labels(answer.text):
        score = span_score(answer.token_scores, answer.token_ends, label.start, label.end)
        named.append((label.name, answer.score if score is None else score))
    return DETECTIONS, "label", named


def later(start: dt.datetime | None, seconds: float) -> dt.datetime | None:
    """The time so many seconds after a start, where that is known."""
    return None if start is None else start + dt.timedelta(seconds=seconds)
