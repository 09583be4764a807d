"""Predictions made by code, and files that hold them."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Nasty on purpose: numbers, quotes, commas, line ends, formulas, markup, other scripts.
HOSTILE = (
    "None",
    "3",
    "007",
    "1e5",
    "NaN",
    "=1+1",
    'a "quoted" owl',
    "Hutton's Vireo",
    "two\nlines",
    "<script>alert(1)</script>",
    "ħ–žluna 夜鷺 🦉",
    "tab\there",
)


def words(rng: random.Random, count: int = 2) -> str:
    return " ".join("".join(rng.choices("aeioulnrst", k=rng.randint(4, 9))) for _ in range(count))


def misspelt(rng: random.Random, text: str) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice("xyz") + text[place + 1 :]


def classification(examples: int = 200, labels: int = 9, seed: int = 0, name: str = "cbi") -> list[dict]:
    rng = random.Random(seed)
    names = [words(rng) for _ in range(labels)]
    rows = []
    for number in range(examples):
        label = rng.choice(names)
        answer = rng.choice([label, label, misspelt(rng, label), rng.choice(names), "an owl calls"])
        rows.append({"prediction": answer, "label": label, "id": f"{name}-{number}", "dataset_name": name})
    return rows


def detection(examples: int = 300, labels: int = 6, seed: int = 1, name: str = "enabirds") -> list[dict]:
    rng = random.Random(seed)
    names = [words(rng) for _ in range(labels)]
    rows = []
    for number in range(examples):
        truth = rng.sample(names, rng.choice((0, 0, 1, 2)))
        answer = [
            misspelt(rng, label) if rng.random() < 0.3 else label for label in truth if rng.random() < 0.8
        ]
        answer += rng.sample(names, rng.choice((0, 0, 1))) + ["a wholly different thing"] * rng.choice((0, 1))
        rows.append(
            {
                "prediction": ", ".join(answer) or "None",
                "label": ", ".join(truth) or "None",
                "id": f"{name}-{number}",
                "dataset_name": name,
            }
        )
    return rows


def captions(examples: int = 40, seed: int = 2) -> list[dict]:
    rng = random.Random(seed)
    rows = []
    for number in range(examples):
        label = words(rng, 8)
        answer = rng.choice([label, " ".join(label.split()[:5]), words(rng, 6)])
        rows.append({"prediction": answer, "label": label, "id": f"c-{number}", "dataset_name": "captioning"})
    return rows


def write(path: Path, rows: list[dict]) -> Path:
    """Write rows in the format of the file's ending."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
