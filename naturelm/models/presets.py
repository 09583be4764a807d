"""Which families and models there are, what each needs, and where its files come from. Imports no torch."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from naturelm.errors import NaturelmError
from naturelm.models import hub


@dataclass(frozen=True)
class Family:
    """One architecture, and what is known of all its models before any is loaded.

    Attributes
    ----------
    name
        Of its folder in `naturelm.models`, and what ``"family"`` in a checkpoint's ``config.json`` says.
    class_path
        ``module:class`` of the model.
    config_keys
        Entries of ``config.json`` by which a checkpoint is known that does not name its family.
    marks
        Published tensors that its checkpoints have and those of other families do not.
    needs_config
        Whether a checkpoint must have a ``config.json``; otherwise the family's defaults serve.
    query_kinds
        Which of detection, caption and classification its models answer.
    sound_place
        What a query may hold, once, where its sound goes; "" where sound stands before all text.
    default_queries
        What its models are asked of an archive where no queries are given, as a settings file has it; none where the
        usual ones suit.
    window_s
        Longest window where ``config.json`` gives no ``window_s``; None where it is known only after loading.
    sample_rate_hz
        Of the sound that its models take.
    """

    name: str
    class_path: str
    config_keys: frozenset[str] = frozenset()
    marks: frozenset[str] = frozenset()
    needs_config: bool = True
    query_kinds: frozenset[str] = frozenset({"detection", "caption", "classification"})
    sound_place: str = ""
    default_queries: tuple[Mapping[str, Any], ...] = ()
    window_s: float | None = None
    sample_rate_hz: int = 16_000

    def load(self) -> type[Any]:
        """The class of its models, a `LanguageModel` or `Classifier` of `naturelm.models.base`; imports torch."""
        module, name = self.class_path.split(":")
        return getattr(import_module(module), name)


@dataclass(frozen=True)
class ModelFile:
    """A file, or the weights of a repository, that a model needs.

    Attributes
    ----------
    part
        What it holds: ``checkpoint``, ``llm``, or one of its family's part files, as `naturelm.models.load_model`
        names them.
    name
        Of the file, or the id of its hub repository.
    gigabytes
        10^9 bytes, by the count of its numbers and their published type.
    """

    part: str
    name: str
    gigabytes: float


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, and what it needs.

    Attributes
    ----------
    name
        As asked for: preset name, directory or hub id.
    path
        Directory of the checkpoint, its file, or its hub id.
    family
        Name of its family, a key of `FAMILIES`; None where the checkpoint's ``config.json`` decides.
    llm
        Base LLM beside it: directory, hub id, or None where the checkpoint's ``config.json`` decides.
    licence
        Of the weights; "" where unknown.
    memory_gb_bf16
        Memory for all weights in bfloat16, in 10^9 bytes, the engine's merged copies included; None where unknown.
    access
        What has to be done to get it, in words.
    files
        All that it needs, of a preset whose weights are not part of this package.
    checkpoint_file
        Name of the file of its weights in a hub repository that has several, or no ``model.safetensors``.
    revision
        Identifies the weights: hub commit, or a digest of the directory; None where they are not here yet.
    """

    name: str
    path: str
    family: str | None = None
    llm: str | None = None
    licence: str = ""
    memory_gb_bf16: float | None = None
    access: str = ""
    files: tuple[ModelFile, ...] = ()
    checkpoint_file: str | None = None
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether `path` is a directory or file, not a hub id."""
        return Path(self.path).exists() or not _HUB_ID.fullmatch(self.path)


# Leads with a letter or digit, so that neither "./a/b" nor an absolute path is taken for one.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LLM_FILES = ["*.json", "*.safetensors", "tokenizer.model"]
_CHECKPOINT_FILES = ["config.json", "model.safetensors"]
# Weights as older publications have them; read without running any code in them.
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_DIGEST_BYTES = 65536
_HERE = Path(__file__).parent

# Families that answer in sentences: labels come from closed lists, and free answers are captions.
_SENTENCES = frozenset({"caption", "classification"})
_GROUPS: dict[str, Any] = {
    "id": "group",
    "kind": "classification",
    "prompt": "What is the main sound in the audio?",
    "labels": [
        *("bird song", "frog calls", "insects", "a mammal", "wind", "rain"),
        *("running water", "an engine", "speech"),
    ],
}

FAMILIES: dict[str, Family] = {
    "naturelm": Family(
        name="naturelm",
        class_path="naturelm.models.naturelm.model:NatureLM",
        config_keys=frozenset({"beats_cfg"}),
        marks=frozenset({"audio_llama_proj.weight"}),
        sound_place="<AudioHere>",
        window_s=10.0,
    ),
    "salmonn": Family(
        name="salmonn",
        class_path="naturelm.models.salmonn.model:SALMONN",
        config_keys=frozenset({"beats_cfg", "whisper_path"}),
        marks=frozenset({"speech_llama_proj.weight"}),
        needs_config=False,
        query_kinds=_SENTENCES,
        sound_place="<SpeechHere>",
        default_queries=(
            _GROUPS,
            {"id": "caption", "kind": "caption", "prompt": "Please describe the audio."},
        ),
        window_s=30.0,
    ),
    "ltu": Family(
        name="ltu",
        class_path="naturelm.models.ltu.model:LTU",
        config_keys=frozenset({"audio_encoder"}),
        marks=frozenset({"base_model.model.model.audio_proj.1.weight"}),
        needs_config=False,
        query_kinds=_SENTENCES,
        default_queries=(
            _GROUPS,
            {"id": "caption", "kind": "caption", "prompt": "Write an audio caption describing the sound."},
        ),
        window_s=10.24,
    ),
}

BEATS_FILE = "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"
"""BEATs as SALMONN was trained with it; no hub repository of its authors has it."""
_BEATS_ACCESS = (
    f"download {BEATS_FILE}, which github.com/microsoft/unilm links to, and start where it is or give "
    "--part beats=FILE"
)
_SALMONN_ENCODERS = (
    ModelFile("whisper", "openai/whisper-large-v2", 6.2),
    ModelFile("beats", BEATS_FILE, 0.4),
)
_VICUNA_7B_V1_1 = ModelFile("llm", "lmsys/vicuna-7b-v1.1", 13.5)
_VICUNA_7B_V1_5 = ModelFile("llm", "lmsys/vicuna-7b-v1.5", 13.5)
_VICUNA_13B = ModelFile("llm", "lmsys/vicuna-13b-v1.1", 26.0)

PRESETS: dict[str, ModelSource] = {
    "pocket": ModelSource(
        name="pocket",
        path=str(_HERE / "bundled" / "pocket"),
        family="naturelm",
        licence="part of this package",
        memory_gb_bf16=0.01,
        access="bundled with this package",
    ),
    "naturelm-8b": ModelSource(
        name="naturelm-8b",
        path="EarthSpeciesProject/NatureLM-audio",
        family="naturelm",
        llm="meta-llama/Meta-Llama-3.1-8B-Instruct",
        licence="CC-BY-NC-SA-4.0; base LLM: Llama 3.1 Community License",
        memory_gb_bf16=19.1,
        access="accept Llama 3.1's terms on the hub, then run `hf auth login`",
        files=(
            ModelFile("checkpoint", "EarthSpeciesProject/NatureLM-audio", 1.6),
            ModelFile("llm", "meta-llama/Meta-Llama-3.1-8B-Instruct", 16.1),
        ),
    ),
    "salmonn-7b": ModelSource(
        name="salmonn-7b",
        path="tsinghua-ee/SALMONN-7B",
        family="salmonn",
        llm="lmsys/vicuna-7b-v1.5",
        licence="Apache-2.0; Whisper: Apache-2.0; BEATs: MIT; base LLM: Llama 2 Community License",
        memory_gb_bf16=16.8,
        access=_BEATS_ACCESS,
        files=(ModelFile("checkpoint", "salmonn_7b_v0.pth", 0.1), *_SALMONN_ENCODERS, _VICUNA_7B_V1_5),
        checkpoint_file="salmonn_7b_v0.pth",
    ),
    "salmonn-13b": ModelSource(
        name="salmonn-13b",
        path="tsinghua-ee/SALMONN",
        family="salmonn",
        llm="lmsys/vicuna-13b-v1.1",
        licence="Apache-2.0; Whisper: Apache-2.0; BEATs: MIT; base LLM: LLaMA, non-commercial",
        memory_gb_bf16=30.1,
        access=_BEATS_ACCESS,
        files=(ModelFile("checkpoint", "salmonn_v1.pth", 0.1), *_SALMONN_ENCODERS, _VICUNA_13B),
        checkpoint_file="salmonn_v1.pth",
    ),
    "ltu-7b": ModelSource(
        name="ltu-7b",
        path="ltu_ori_paper.bin",
        family="ltu",
        llm="lmsys/vicuna-7b-v1.1",
        licence="see github.com/YuanGongND/ltu; base LLM: LLaMA, non-commercial",
        memory_gb_bf16=15.4,
        access="download ltu_ori_paper.bin, which github.com/YuanGongND/ltu links to, and start where it is",
        files=(ModelFile("checkpoint", "ltu_ori_paper.bin", 0.4), _VICUNA_7B_V1_1),
    ),
}


def resolve(name_or_path: str | Path) -> ModelSource:
    """Find out what a model's name means, without loading or fetching anything.

    Parameters
    ----------
    name_or_path
        Preset name, local directory, or hub id (``owner/name``); a directory goes before a hub id.

    Raises
    ------
    NaturelmError
        If it is none of these.
    """
    name = str(name_or_path)
    if not name.strip():
        raise NaturelmError(
            f"the model's name is {name!r}, which is empty; give {', '.join(PRESETS)}, a directory or a hub id"
        )
    if name in PRESETS:
        return _with_revision(PRESETS[name])
    directory = Path(name).expanduser()
    if directory.is_dir() or (directory.is_file() and directory.suffix in (".safetensors", *_TORCH_SUFFIXES)):
        return _with_revision(ModelSource(name=name, path=str(directory), access="on this machine"))
    for preset in PRESETS.values():
        if name == preset.path:
            return _with_revision(replace(preset, name=name))
    if _HUB_ID.fullmatch(name):
        return _with_revision(ModelSource(name=name, path=name, access="from the hub"))
    raise NaturelmError(
        f"there is no model {name!r}; give {', '.join(PRESETS)}, a directory with config.json and "
        "model.safetensors, or a hub id such as EarthSpeciesProject/NatureLM-audio"
    )


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/name``, which a relative path may have too."""
    return _HUB_ID.fullmatch(name) is not None


def family_of(source: ModelSource) -> Family:
    """A model's family; its checkpoint is fetched where no preset names the family.

    Raises
    ------
    NaturelmError
        If the checkpoint has no ``config.json`` that can be read, nor tensors of one family, or names an unknown one.
    """
    if source.family is not None:
        return FAMILIES[source.family]
    config = fetch(source) / "config.json"
    if config.is_file():
        return family_in(read_config(config), str(config))
    from naturelm.models.checkpoint import read_tensors

    weights = weights_file(source, config.parent)
    found = family_with(read_tensors(weights))
    if found is None:
        raise NaturelmError(
            f"{weights}: holds no model of {', '.join(FAMILIES)} and has no config.json beside it; give a checkpoint"
        )
    return found


def known_family(source: ModelSource) -> Family | None:
    """As `family_of`, but nothing is fetched: None where only the hub knows.

    Raises
    ------
    NaturelmError
        As of `family_of`.
    """
    return family_of(source) if source.family is not None or source.is_local else None


def family_with(tensors: Iterable[str]) -> Family | None:
    """The family that has tensors of these published names; None where none has."""
    names = set(tensors)
    return next((family for family in FAMILIES.values() if family.marks and family.marks <= names), None)


def family_in(values: Mapping[str, Any], where: str) -> Family:
    """The family that the content of a ``config.json`` is of: the one it names, or whose entries it has.

    Released NatureLM-audio checkpoints may leave out every entry, so without any it is theirs.

    Raises
    ------
    NaturelmError
        If it names an unknown family; `where` is the file, for the message.
    """
    if "family" in values:
        named = str(values["family"])
        if named not in FAMILIES:
            near = difflib.get_close_matches(named, FAMILIES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(FAMILIES)}"
            raise NaturelmError(f"{where}: family is {named!r}, which this version does not have; {hint}")
        return FAMILIES[named]
    matching = [f for f in FAMILIES.values() if f.config_keys and f.config_keys <= values.keys()]
    # The one with most entries: SALMONN's, for one, has all of NatureLM's and more.
    return max(matching, key=lambda family: len(family.config_keys), default=FAMILIES["naturelm"])


def read_config(path: Path) -> dict[str, Any]:
    """The content of a ``config.json``.

    Raises
    ------
    NaturelmError
        If it cannot be read, or is not a table of settings.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NaturelmError(f"{path}: cannot be read ({error.strerror}); a checkpoint needs it") from error
    except ValueError as error:
        raise NaturelmError(f"{path}: is not JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(values, dict):
        raise NaturelmError(f"{path}: holds no table of settings; fetch the checkpoint again")
    return values


def is_here(source: ModelSource) -> bool:
    """Whether all files of a model are on this machine."""
    if source.is_local:
        try:
            fetch(source)
        except NaturelmError:
            return False
        return all(_is_part_here(file) for file in source.files)
    needed = _CHECKPOINT_FILES if source.checkpoint_file is None else [source.checkpoint_file]
    return hub.is_cached(source.path, needed) and all(
        _is_part_here(file) for file in source.files if file.part != "checkpoint"
    )


def _is_part_here(file: ModelFile) -> bool:
    if _HUB_ID.fullmatch(file.name):
        return hub.is_cached(file.name, ["config.json"])
    return Path(file.name).is_file()


def fetch(source: ModelSource) -> Path:
    """The checkpoint's directory; from the hub if it is not here.

    Raises
    ------
    NaturelmError
        If the directory lacks a file, or the hub cannot be reached or denies access.
    """
    if not source.is_local:
        own = source.checkpoint_file
        directory = hub.fetch_from_hub(source.path, _CHECKPOINT_FILES if own is None else [own])
    else:
        directory = Path(source.path)
        if source.name in PRESETS and not directory.exists():
            raise NaturelmError(f"{source.name} is not on this machine; {source.access}")
        directory = directory.parent if directory.is_file() else directory
    weights = weights_file(source, directory)
    needed = [directory / "config.json", weights] if weights.suffix == ".safetensors" else [weights]
    for path in needed:
        if not path.is_file():
            raise NaturelmError(
                f"{directory}: has no {path.name}; give a directory that holds {' and '.join(_CHECKPOINT_FILES)}"
            )
    return directory


def weights_file(source: ModelSource, directory: Path) -> Path:
    """The file of a checkpoint's weights in its directory: ``model.safetensors``, or a single torch file.

    Raises
    ------
    NaturelmError
        If there are several torch files.
    """
    if Path(source.path).is_file():
        return Path(source.path)
    if source.checkpoint_file is not None:
        return directory / source.checkpoint_file
    weights = directory / "model.safetensors"
    if weights.is_file():
        return weights
    published = sorted(path for path in directory.glob("*") if path.suffix in _TORCH_SUFFIXES)
    if len(published) > 1:
        raise NaturelmError(
            f"{directory}: holds {', '.join(path.name for path in published)}; give one of these files itself"
        )
    return published[0] if published else weights


def check_local(source: ModelSource, window_s: float) -> None:
    """Check what can be known of a model before anything is fetched or loaded: its files, and its longest window.

    Raises
    ------
    NaturelmError
        If its directory lacks a file, or `window_s` is longer than the model takes.
    """
    family, longest_s = FAMILIES.get(source.family or ""), None
    if source.is_local:
        path = fetch(source) / "config.json"
        if path.is_file():
            values = read_config(path)
            family, longest_s = family or family_in(values, str(path)), values.get("window_s")
    if not isinstance(longest_s, int | float):
        longest_s = None if family is None else family.window_s
    if longest_s is not None and window_s > longest_s:
        raise NaturelmError(
            f"window is {window_s:g} s, and {source.name} takes at most {longest_s:g} s; give a shorter --window"
        )


def fetch_llm(llm: str | Path, checkpoint: Path) -> Path:
    """The base LLM's directory: a path (relative to the checkpoint, or to where we are) or a hub id.

    Raises
    ------
    NaturelmError
        If there is no such directory, or the hub cannot be reached or denies access.
    """
    directory = _fetch_beside("base LLM", "--llm", llm, checkpoint, _LLM_FILES)
    if is_hub_id(str(llm)) and not Path(llm).is_dir() and not list(directory.glob("*.safetensors")):
        # Older repositories, such as those of Vicuna, have torch files alone.
        return hub.fetch_from_hub(str(llm), [*_LLM_FILES, "pytorch_model*.bin"])
    return directory


def fetch_whisper(whisper: str | Path, checkpoint: Path) -> Path:
    """Whisper's directory; parameters and errors as of `fetch_llm`."""
    return _fetch_beside(
        "Whisper model", "--part whisper=DIR", whisper, checkpoint, ["config.json", "model.safetensors"]
    )


def _fetch_beside(what: str, option: str, named: str | Path, checkpoint: Path, files: list[str]) -> Path:
    for candidate in (checkpoint / named, Path(named)):
        if candidate.is_dir():
            return candidate.resolve()
    if _HUB_ID.fullmatch(str(named)):
        return hub.fetch_from_hub(str(named), files)
    raise NaturelmError(f"there is no {what} {str(named)!r} here; give its directory or hub id with {option}")


def _with_revision(source: ModelSource) -> ModelSource:
    return replace(
        source,
        revision=_digest(Path(source.path))
        if source.is_local
        else hub.cached_commit(source.path, source.checkpoint_file or "config.json"),
    )


def known_weights(name: str) -> ModelSource:
    """The model's source, its weights on this machine: only they tell which analysis an archive's rows belong to.

    Raises
    ------
    NaturelmError
        There is no such model, or its weights cannot be fetched.
    """
    source = resolve(name)
    if source.revision is None:
        fetch(source)
        source = resolve(name)
    return source


def _digest(place: Path) -> str | None:
    """Digest of config.json and the weights beside it, or of one file: each name, size, first and last 64 KiB."""
    config = place / "config.json"
    paths = [place] if place.is_file() else [path for path in [config] if path.is_file()]
    if not place.is_file():
        paths += sorted(place.rglob("*.safetensors"))
        paths += sorted(path for path in place.glob("*") if path.suffix in _TORCH_SUFFIXES)
        paths += sorted(own_llm(config).glob("*.safetensors"))
    if not paths:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_DIGEST_BYTES))
            file.seek(max(size - _DIGEST_BYTES, 0))
            digest.update(file.read(_DIGEST_BYTES))
    return digest.hexdigest()


def own_llm(config: Path) -> Path:
    """The base LLM's directory that a checkpoint's config.json names, whether it is there or not."""
    try:
        named = json.loads(config.read_text(encoding="utf-8"))["llama_path"]
        return config.parent / named
    except (OSError, ValueError, KeyError, TypeError):
        return config.parent / "llm"
