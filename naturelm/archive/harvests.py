"""What a run adds to its output directory: answers, embeddings or both, each with its own progress.

The rule: both may be in one directory, from one run or several, if their windows are the same. What one run finds
done it does not do again; the encoder alone runs for windows that lack embeddings only.
"""

from __future__ import annotations

from collections.abc import Sequence

from naturelm.archive.scan import new_segment_windows
from naturelm.config.archive import ArchiveConfig
from naturelm.errors import NaturelmError
from naturelm.results.analysis import check_version, differences, read_analysis
from naturelm.results.layout import holds_results
from naturelm.results.output import Output
from naturelm.results.table_sets import VECTORS, WORDS, TableSet
from naturelm.storage import Location

# What decides which sound a window holds, and which windows there are.
_CUT = ("windows", "audio", "gate")
_NAMES = {"": "answers", VECTORS.folder: "embeddings"}


def wanted_sets(config: ArchiveConfig, embed_only: bool) -> list[TableSet]:
    """The tables that a run writes."""
    if embed_only:
        return [VECTORS]
    return [WORDS] if config.embeddings.pooling is None else [WORDS, VECTORS]


def open_outputs(
    out: Location, config: ArchiveConfig, revision: str, sets: Sequence[TableSet]
) -> list[Output]:
    """The directory as the writer of each of these sets has it.

    Raises
    ------
    NaturelmError
        As `Output`; or the directory holds the other set, of other windows.
    """
    settings = {
        WORDS.folder: config.analysis(revision),
        VECTORS.folder: config.embedding_analysis(revision),
    }
    segment_windows = new_segment_windows(config)
    for tables in (WORDS, VECTORS):
        home = tables.home(out)
        if not holds_results(home):
            continue
        check_version(home)
        analysis = read_analysis(home)
        segment_windows = analysis.segment_windows
        given = settings[tables.folder]
        differing = list(
            differences(
                {name: analysis.settings.get(name) for name in _CUT}, {name: given.get(name) for name in _CUT}
            )
        )
        if differing and tables not in sets:
            raise NaturelmError(
                f"{out}: its {_NAMES[tables.folder]} are of other windows, which differ in {'; '.join(differing)}; "
                "give the same --window, --hop, --channel and --gate, or another --out"
            )
    whole = config.model_dump(mode="json")
    return [Output(out, settings[tables.folder], whole, segment_windows, tables) for tables in sets]
