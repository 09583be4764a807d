"""Repositories of the Hugging Face hub: what of them is on this machine, and fetching the rest. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from naturelm.errors import NaturelmError


def cached_commit(repo_id: str, file: str = "config.json") -> str | None:
    """Commit of the hub repository's copy on this machine, known by one of its files; None where it is not here."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo_id, file)
    return Path(path).parent.name if isinstance(path, str) else None


def is_cached(repo_id: str, files: Sequence[str]) -> bool:
    """Whether these files of a hub repository are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return all(isinstance(try_to_load_from_cache(repo_id, name), str) for name in files)


def fetch_from_hub(repo_id: str, files: Sequence[str]) -> Path:
    """The directory of a hub repository's copy on this machine, which is made or completed.

    Parameters
    ----------
    repo_id
        ``owner/name``.
    files
        Names or patterns of the files that are needed.

    Raises
    ------
    NaturelmError
        If the hub cannot be reached or denies access.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(files), etag_timeout=5))
    except GatedRepoError as error:
        raise NaturelmError(
            f"{repo_id} is gated; accept its terms at huggingface.co/{repo_id} and run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise NaturelmError(
            f"the hub has no {repo_id} that you may read; check the name, or run `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise NaturelmError(
            f"{repo_id} is not on this machine and the hub cannot be reached; connect to the internet, "
            "or give the directory of a copy"
        ) from error
