"""`naturelm inference-app`: the web app."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import archive_option, llm_option, model_option, weights_option


@click.command("inference-app")
@click.option("--results", type=click.Path(path_type=Path), help="Directory of tables to explore and review.")
@model_option
@llm_option
@weights_option
@archive_option
@click.option(
    "--port", default=7860, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
def inference_app(
    results: Path | None,
    model: str | None,
    llm: str | None,
    weights: str | None,
    archive: Path | None,
    port: int,
) -> None:
    """Open the web app on this machine (127.0.0.1): query a model about sounds, explore and review results."""
    from naturelm.app.ask import Asker
    from naturelm.app.explore import Results
    from naturelm.app.server import serve
    from naturelm.archive.fitting import with_fitting_weights
    from naturelm.config.archive import ModelSettings

    settings = with_fitting_weights(
        ModelSettings.model_validate({"name": model or "pocket", "llm": llm, "weights": weights or "auto"})
    )

    serve(
        Asker(settings.name, llm, settings.weights),
        None if results is None else Results(results, archive),
        port,
    )
