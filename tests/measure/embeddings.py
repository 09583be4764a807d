"""Embeddings measured: what they cost, what search and probes find on ESC-10, how long millions of vectors take.

python -m tests.measure.embeddings scale DIR            search and probe over three million synthetic vectors
python -m tests.measure.embeddings esc10 ESC10 DIR      search and probes on 400 clips, as recordings of 5 stations
python -m tests.measure.embeddings cost ESC10 DIR       process with and without embeddings, and embed alone
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from naturelm.embeddings.probe_model import Probe, write_probe
from naturelm.embeddings.vectors import StoredVectors, normalised
from naturelm.results.analysis import Analysis, write_analysis
from naturelm.results.parquet import write_table
from naturelm.results.rows import vector_array, vector_type
from naturelm.results.schemas import EMBEDDINGS, RECORDINGS, VECTOR_TABLES, table_columns
from naturelm.results.table_sets import VECTORS
from tests.measure.embeddings_probes import measure_probes

DAYS, WINDOWS_A_DAY, WIDTH = 350, 8640, 768
REVISION = "synthetic"


def scale(place: Path) -> None:
    """Three million vectors of 768 in days of 8,640, and what search and a probe take over them."""
    out = place / "scale"
    if not out.exists():
        _write_synthetic(out)
    size = sum(file.stat().st_size for file in (out / EMBEDDINGS).rglob("*.parquet"))
    print(f"{DAYS * WINDOWS_A_DAY:,} vectors, {size / DAYS / WINDOWS_A_DAY:.0f} bytes each")
    for _ in range(3):
        _timed("search", ["search", out, "--detection", "day0.wav@4000", "--top", "10", "--format", "csv"])
    rng = np.random.default_rng(1)
    weights = tuple(float(weight) for weight in rng.normal(size=WIDTH))
    write_probe(Probe("Owl", "synthetic", REVISION, "mean", weights, -3.0), place / "owl.probe")
    for _ in range(2):
        shutil.rmtree(out / "probe_detections", ignore_errors=True)
        _timed("probe apply", ["probe", "apply", out, place / "owl.probe"])
    _timed("probe apply, nothing new", ["probe", "apply", out, place / "owl.probe"])


def _write_synthetic(out: Path) -> None:
    settings = {
        "model": {"revision": REVISION, "dtype": "auto"},
        "embeddings": {"pooling": "mean"},
        "windows": {"length_s": 10.0, "hop_s": 10.0},
        "audio": {"channel": None},
    }
    home = VECTORS.home(out)
    home.mkdir(parents=True)
    config = {"model": {"name": "synthetic"}}
    write_analysis(home, Analysis(settings, 60, config, table_columns(VECTOR_TABLES)))
    (home / RECORDINGS / "A").mkdir(parents=True)
    (out / EMBEDDINGS / "A").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(DAYS):
        date = dt.date(2025, 1, 1) + dt.timedelta(days=number)
        key = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
        start_s = np.arange(WINDOWS_A_DAY) * 10.0
        vectors = rng.standard_normal((WINDOWS_A_DAY, WIDTH), np.float32).astype(np.float16)
        schema = VECTOR_TABLES[EMBEDDINGS]
        place = schema.get_field_index("vector")
        schema = schema.set(place, pa.field("vector", vector_type(WIDTH), nullable=False))
        columns = [
            pa.repeat(pa.scalar("A"), WINDOWS_A_DAY),
            pa.repeat(pa.scalar(date, pa.date32()), WINDOWS_A_DAY),
            pa.repeat(pa.scalar(key), WINDOWS_A_DAY),
            pa.array(np.arange(WINDOWS_A_DAY, dtype=np.int32)),
            pa.array(start_s),
            pa.array(start_s + 10),
            vector_array(vectors),
        ]
        write_table(out / EMBEDDINGS / "A" / f"{date}.parquet", pa.table(columns, schema=schema))
        row = {
            "station": "A",
            "date": date,
            "recording_id": key,
            "path": f"day{number}.wav",
            "duration_s": 86400.0,
            "decoded_s": 86400.0,
            "status": "ok",
            "windows": WINDOWS_A_DAY,
        }
        rows = pa.Table.from_pylist([row], schema=VECTOR_TABLES[RECORDINGS])
        write_table(home / RECORDINGS / "A" / f"{date}.parquet", rows)


def _timed(what: str, arguments: list[object]) -> float:
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "naturelm.cli", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL
    )
    wall_s = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{what}: {wall_s:.1f} s, peak memory of all commands so far {peak:.0f} MiB", flush=True)
    return wall_s


def _archive(esc10: Path, place: Path) -> dict[str, str]:
    """Clips as recordings of stations, one for each fold; returns the class by path."""
    classes = {}
    with (esc10 / "esc10.csv").open() as file:
        for row in csv.DictReader(file):
            name = row["filename"]
            path = f"fold{row['fold']}/{name}"
            classes[path] = row["category"]
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            source = next((esc10 / "audio").rglob(Path(name).stem + ".*"))
            if not target.exists():
                shutil.copy(source, target)
    return classes


def esc10(data: Path, place: Path, *models: str) -> None:
    """Precision at 10 of search, and average precision of probes, beside random vectors."""
    classes = _archive(data, place / "archive")
    for model in models or ("pocket",):
        out = place / f"esc10-{model.replace('/', '_')}"
        options = ["--model", model, "--window", "5", "--workers", "0", "--station-from", "folder"]
        _timed(f"embed with {model}", ["embed", place / "archive", "--out", out, *options])
        stored = StoredVectors(out)
        from naturelm.tables.query import open_tables

        paths = dict(open_tables(out).sql("SELECT recording_id, path FROM recordings").fetchall())
        rows, vectors = [], []
        for batch in stored.batches():
            rows += batch.keys.to_pylist()
            vectors.append(batch.unit_vectors())
        unit = np.concatenate(vectors)
        labels = np.array([classes[paths[row["recording_id"]]] for row in rows])
        stations = np.array([row["station"] for row in rows])
        print(f"{model}: {len(unit)} windows, width {unit.shape[1]}")
        random = normalised(np.random.default_rng(0).normal(size=unit.shape).astype(np.float32))
        for name, matrix in ((model, unit), ("random vectors", random)):
            _search(name, matrix, labels, stations)
            print(json.dumps({name: measure_probes(matrix, labels, stations)}), flush=True)


def _search(name: str, unit: np.ndarray, labels: np.ndarray, stations: np.ndarray) -> None:
    similarity = unit @ unit.T
    # Clips of one source are in one fold: only those of other stations count.
    similarity[stations[:, None] == stations[None, :]] = -np.inf
    best = np.argsort(-similarity, axis=1)[:, :10]
    hits = (labels[best] == labels[:, None]).mean(axis=1)
    by_class = {str(label): round(float(hits[labels == label].mean()), 3) for label in sorted(set(labels))}
    print(f"{name}: precision at 10, clips of other stations: {hits.mean():.3f}; {json.dumps(by_class)}")


def cost(data: Path, place: Path) -> None:
    """The same archive with and without embeddings, in turn, and the encoder alone."""
    _archive(data, place / "archive")
    times: dict[str, list[float]] = {"without": [], "with": [], "embed": []}
    options = ["--window", "5", "--workers", "0", "--station-from", "folder"]
    for _ in range(3):
        for name, verb, more in (
            ("without", "process", []),
            ("with", "process", ["--embeddings"]),
            ("embed", "embed", []),
        ):
            out = place / f"cost-{name}"
            shutil.rmtree(out, ignore_errors=True)
            times[name].append(_timed(name, [verb, place / "archive", "--out", out, *options, *more]))
    print({name: round(statistics.median(found), 2) for name, found in times.items()})
    pairs = [b / a for a, b in zip(times["without"], times["with"], strict=True)]
    print("with / without, pair by pair:", [round(pair, 3) for pair in pairs])


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    {"scale": scale, "esc10": esc10, "cost": cost}[verb](*map(Path, arguments[:2]), *arguments[2:])
