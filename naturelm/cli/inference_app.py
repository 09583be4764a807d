"""`naturelm inference-app`: the web app."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("inference-app")
@click.option("--results", type=click.Path(path_type=Path), help="A results directory to explore and review.")
@click.option(
    "--model", default="pocket", show_default=True, help="Bundled model, checkpoint directory or hub id."
)
@click.option("--llm", help="Base LLM, a directory or hub id.  [default: what the checkpoint names]")
@click.option(
    "--archive", type=click.Path(path_type=Path),
    help="Where the recordings lie now.  [default: where the runs read them]",
)  # fmt: skip
@click.option(
    "--port", default=7860, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
def inference_app(results: Path | None, model: str, llm: str | None, archive: Path | None, port: int) -> None:
    """Open the web app on this machine (127.0.0.1): ask about sounds, explore and review results."""
    from naturelm.app.ask import Asker
    from naturelm.app.explore import Results
    from naturelm.app.server import serve

    serve(Asker(model, llm), None if results is None else Results(results, archive), port)
