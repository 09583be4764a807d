"""Which queries a model answers, and those that it gets where none are given."""

from __future__ import annotations

from naturelm.config.archive import ArchiveConfig, Query
from naturelm.errors import NaturelmError
from naturelm.models.presets import known_family, resolve


def check_places(config: ArchiveConfig) -> None:
    """Refuse queries that name several places for the sound, before a model is loaded.

    Raises
    ------
    NaturelmError
        One does.
    """
    family = known_family(resolve(config.model.name))
    for query in config.queries:
        if family is not None and family.sound_place:
            places = query.prompt.count(family.sound_place)
            if places > 1:
                raise NaturelmError(
                    f"query {query.id} holds {family.sound_place} {places} times; a window has one sound, so name it "
                    "once"
                )


def with_model_queries(config: ArchiveConfig) -> ArchiveConfig:
    """The settings of a run with its model's own queries, where neither an option nor the settings file has any.

    Raises
    ------
    NaturelmError
        A query is of a kind that the model does not answer, or names several places for the sound.
    """
    source = resolve(config.model.name)
    family = known_family(source)
    if family is None:
        return config
    if family.default_queries and "queries" not in config.model_fields_set:
        own = tuple(Query.model_validate(query) for query in family.default_queries)
        return config.model_copy(update={"queries": own})
    check_places(config)
    for query in config.queries:
        if query.kind not in family.query_kinds:
            known = " and ".join(sorted(family.query_kinds))
            raise NaturelmError(
                f"query {query.id} is of kind {query.kind}, and {source.name} answers {known} queries; give "
                f"--query {query.id}:caption=TEXT, or a closed list in a settings file (kind: classification, labels)"
            )
    return config
