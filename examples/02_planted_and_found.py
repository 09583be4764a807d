"""Compare what was planted in the demo's night with the detections in the tables.

python examples/02_planted_and_found.py demo/night demo/tables
"""

import csv
import sys
from pathlib import Path

import naturelm

night, tables = Path(sys.argv[1]), Path(sys.argv[2])
with (night / "planted.csv").open() as file:
    planted = [(r["path"], float(r["start_s"]), float(r["end_s"]), r["label"]) for r in csv.DictReader(file)]

detections = (
    naturelm.open_tables(tables).sql("SELECT path, start_s, end_s, label, score FROM detections").fetchall()
)


def matches(plant: tuple, detection: tuple) -> bool:
    """Whether a detection names the planted sound in a window that contains some of it."""
    same = plant[0] == detection[0] and plant[3].lower() == detection[3].lower()
    return same and detection[1] < plant[2] and detection[2] > plant[1]


print(f"{'planted':<50} {'label':<10} detected as (score)")
for plant in planted:
    overlapping = [d for d in detections if d[0] == plant[0] and d[1] < plant[2] and d[2] > plant[1]]
    labels = ", ".join(f"{d[3]} ({d[4]:.2f})" for d in overlapping) or "nothing"
    print(f"{plant[0]} at {plant[1]:.0f} s".ljust(50), plant[3].ljust(10), labels)

found = sum(any(matches(plant, d) for d in detections) for plant in planted)
false = [d for d in detections if not any(matches(plant, d) for plant in planted)]
print(f"{found} of {len(planted)} planted sounds found, {len(false)} detections of anything else")
