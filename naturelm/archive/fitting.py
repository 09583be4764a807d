"""How a model's weights fit this machine, decided before anything is loaded and kept by an output directory."""

from __future__ import annotations

from naturelm.config.archive import ArchiveConfig, ModelSettings
from naturelm.machine import available_bytes, multiplies_bfloat16, read_gpus, usable_cores
from naturelm.models.presets import resolve
from naturelm.models.sizes import Room, Sizes, choose_weights, sizes_of
from naturelm.results.analysis import read_analysis
from naturelm.results.layout import holds_results
from naturelm.storage import Location

_WORTH_A_LINE_BYTES = 2e9


def room_here(device: str | None = None) -> Room:
    """What this machine offers a model: of the GPU with the least free memory, or of the processor.

    Parameters
    ----------
    device : str, optional
        Where the model is to run; by default the GPUs, where there are any.
    """
    gpus = () if device is not None and not device.startswith("cuda") else read_gpus()
    if gpus:
        return Room(min(gpu.total_mib - gpu.used_mib for gpu in gpus) * 2.0**20, True, True)
    return Room(available_bytes(), False, multiplies_bfloat16())


def with_fitting_weights(settings: ModelSettings, device: str | None = None) -> ModelSettings:
    """A model's settings with the weights that fit this machine.

    Raises
    ------
    NaturelmError
        None fit, or not the given ones.
    """
    weights = choose_weights(
        resolve(settings.name), settings.weights, settings.dtype, room_here(device), settings.llm
    )
    return settings.model_copy(update={"weights": weights})


def fitted_to(out: Location, config: ArchiveConfig) -> ArchiveConfig:
    """The settings of a run with the weights that fit, which are those of earlier runs into the same directory.

    What the machines of a cluster have is not known here: there the weights stay as given.

    Raises
    ------
    NaturelmError
        As of `with_fitting_weights`; or the directory is damaged.
    """
    model = config.model
    if model.weights == "auto" and holds_results(out):
        earlier = read_analysis(out).settings.get("model", {}).get("weights", "auto")
        model = model.model_copy(update={"weights": earlier})
        if earlier == "auto" and model.dtype == "auto":
            # Its rows are of the device's usual type.
            return config
    if config.job.address is None:
        model = with_fitting_weights(model)
    return config.model_copy(update={"model": model})


def workers_here(settings: ModelSettings) -> int:
    """Workers that this machine runs side by side: one for each GPU, or for each core whose model fits the memory."""
    gpus = len(read_gpus())
    if gpus:
        # One GPU alone gains too: several processes decode for it.
        return max(2, gpus)
    needed = _needed_bytes(settings, Room(None, False, False))
    free = available_bytes()
    if needed is None or free is None:
        return usable_cores()
    return min(usable_cores(), int(free // needed))


def _needed_bytes(settings: ModelSettings, room: Room) -> float | None:
    sizes = sizes_of(resolve(settings.name), settings.llm)
    if sizes is None:
        return None
    return sizes.bytes_of(_weights_in(room, settings, sizes))


def _weights_in(room: Room, settings: ModelSettings, sizes: Sizes) -> str:
    """The weights that a model is loaded with."""
    if settings.weights != "auto":
        return settings.weights
    usual = "bf16" if room.is_gpu or settings.dtype == "bfloat16" else "float32"
    return sizes.stored or usual


def memory_line(settings: ModelSettings) -> str | None:
    """What a model takes here, for people; None where that is little, or not known."""
    source, room = resolve(settings.name), room_here()
    sizes = sizes_of(source, settings.llm)
    if sizes is None or room.bytes is None:
        return None
    weights = _weights_in(room, settings, sizes)
    needed = sizes.bytes_of(weights)
    if needed < _WORTH_A_LINE_BYTES:
        return None
    memory = "GPU memory" if room.is_gpu else "memory"
    return (
        f"model: {source.name} with weights {weights}, about {needed / 1e9:.1f} GB of {memory} for each worker; "
        f"{room.bytes / 1e9:.1f} GB are free"
    )
