"""The two harvests of a pass over an archive: words and vectors. Each is an analysis with its own progress.

Words are answers, and what is parsed from them; vectors are the embeddings of the model's encoder. A directory holds
either or both. What is particular to one, `analysis.yaml` and staged files, lies in the directory itself for words and
in a folder of it for vectors; scans, runs and the lock are of the directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from naturelm.results.layout import VECTORS_HOME, analysis_home
from naturelm.results.schemas import ANSWERS, EMBEDDINGS, RECORDINGS, TABLES, VECTOR_TABLES
from naturelm.storage import Location


@dataclass(frozen=True)
class TableSet:
    """Tables that are committed and published together.

    Attributes
    ----------
    schemas : mapping of str to Schema
        By table, `recordings` among them.
    commit : str
        The table whose staged file commits a segment.
    folder : str
        Folder of what is particular to the set; "" is the output directory itself.
    """

    schemas: Mapping[str, pa.Schema]
    commit: str
    folder: str

    def home(self, directory: Location) -> Location:
        """Where the set's `analysis.yaml`, staged files and `recordings` are."""
        return directory / self.folder if self.folder else directory

    def place(self, directory: Location, table: str) -> Location:
        """The folder of a table's published files; all but `recordings` are where readers look for tables."""
        return (self.home(directory) if table == RECORDINGS else directory) / table

    @property
    def staging_order(self) -> list[str]:
        """Tables, that of the commit last."""
        return [*(name for name in self.schemas if name != self.commit), self.commit]

    @property
    def daily(self) -> list[str]:
        """Tables that have a file for every published day; embeddings have none where there is no vector."""
        return [name for name in self.schemas if name != EMBEDDINGS]

    @property
    def publishing_order(self) -> list[str]:
        """Tables, `recordings` last: a recording that is listed there has all its other rows published."""
        return [*(name for name in self.schemas if name != RECORDINGS), RECORDINGS]


WORDS = TableSet(TABLES, ANSWERS, "")
VECTORS = TableSet(VECTOR_TABLES, EMBEDDINGS, VECTORS_HOME)


def tables_in(directory: Location) -> TableSet:
    """The set that says which recordings a directory has: words, or vectors where there are no words."""
    return VECTORS if analysis_home(directory) != directory else WORDS
