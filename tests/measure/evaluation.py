"""Measures how long it takes to score as many predictions as BEANS-Zero has: python tests/measure/evaluation.py DIR."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from naturelm.evaluation.components import BEANS_ZERO

# Examples by component, and how many labels it has (Robinson et al., 2024, and the benchmark's configuration).
SIZES = {
    "esc50": (400, 50), "watkins": (339, 31), "cbi": (3620, 264), "humbugdb": (1859, 14), "enabirds": (4543, 34),
    "hiceas": (1485, 1), "rfcx": (10406, 24), "gibbons": (18560, 3), "dcase": (13688, 18), "lifestage": (466, 3),
    "call-type": (1000, 2), "zf-indiv": (1160, 2), "captioning": (26468, 0),
    **{f"unseen-{rank}-{naming}": (examples, labels) for rank, examples, labels in
       (("species", 1255, 202), ("genus", 951, 101), ("family", 451, 40)) for naming in ("cmn", "sci", "tax")},
}  # fmt: skip
EXAMPLES = 91_965


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(VOCABULARY) for _ in range(count))


VOCABULARY = ["".join(random.Random(n).choices("aeioulnrst", k=3 + n % 6)) for n in range(4000)]


def rows(seed: int = 0) -> list[dict[str, str]]:
    """Predictions of which half are right, the others wrong, misspelt or no label at all."""
    rng, found = random.Random(seed), []
    for name, (examples, label_count) in SIZES.items():
        labels = [words(rng, 2).title() for _ in range(label_count)]
        for number in range(examples):
            if BEANS_ZERO[name].scoring == "captioning":
                label = words(rng, rng.randint(6, 20))
            elif BEANS_ZERO[name].scoring == "detection":
                label = (
                    ", ".join(rng.sample(labels, min(len(labels), rng.choice((0, 0, 1, 1, 2, 3))))) or "None"
                )
            else:
                label = rng.choice(labels)
            wrong = words(rng, 2).title() if rng.random() < 0.5 or not labels else rng.choice(labels)
            prediction = label if rng.random() < 0.5 else wrong
            found.append(
                {"prediction": prediction, "label": label, "id": f"{name}-{number}", "dataset_name": name}
            )
    return found


def main() -> None:
    from click.testing import CliRunner

    from naturelm.cli import main as command

    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    found = rows()
    assert len(found) == EXAMPLES, len(found)
    file = directory / "predictions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    began = time.monotonic()
    done = CliRunner().invoke(
        command, ["evaluate", "--predictions", str(file), "--out", str(directory / "scores")]
    )
    print(done.output)
    print(f"{len(found)} predictions scored in {time.monotonic() - began:.1f} s, exit code {done.exit_code}")


if __name__ == "__main__":
    main()
