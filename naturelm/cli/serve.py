"""`naturelm serve`: a model behind HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from naturelm.cli._options import llm_option, model_option, weights_option


@click.command()
@model_option
@llm_option
@weights_option
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--max-batch-size",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    help="Most items of one request; more are refused with status 413.",
)
@click.option(
    "--num-beams",
    default=2,
    show_default=True,
    type=click.IntRange(min=1, max=16),
    help="Beams of the search, for requests without a temperature; 1 is greedy.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Let requests name files below this directory (file_path).  [default: none]",
)
def serve(
    model: str | None,
    llm: str | None,
    weights: str | None,
    port: int,
    max_batch_size: int,
    num_beams: int,
    root: Path | None,
) -> None:
    """Answer questions about sounds by HTTP on this machine (127.0.0.1), for evaluation harnesses and other tools.

    GET /health, GET /info and POST /predict, in the schema predictions_v1 of BEANS-Next. Requests of several clients
    share batches.
    """
    from naturelm.archive.fitting import with_fitting_weights
    from naturelm.config.archive import ModelSettings
    from naturelm.service.http import serve_model

    settings = with_fitting_weights(
        ModelSettings.model_validate({"name": model or "pocket", "llm": llm, "weights": weights or "auto"})
    )

    serve_model(
        settings.name,
        llm=llm,
        weights=settings.weights,
        port=port,
        max_batch_size=max_batch_size,
        num_beams=num_beams,
        root=root,
    )
