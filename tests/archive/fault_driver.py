"""`naturelm process` with a model for tests: python -m tests.archive.fault_driver MODEL ARGUMENT...

MODEL is `stub` or `faulty` (see `stub_model`), or `pocket`, the bundled one.
"""

from __future__ import annotations

import sys

from naturelm.archive import job
from naturelm.cli import main
from tests.archive import stub_model

if __name__ == "__main__":
    model, *arguments = sys.argv[1:]
    if model != "pocket":
        asks = {"stub": stub_model.StubAsk, "faulty": stub_model.FaultyAsk}
        job.process_archive.__kwdefaults__["make_ask"] = asks[model]
    main(["process", *arguments])
