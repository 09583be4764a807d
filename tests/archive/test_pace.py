"""Small archives end in this process, and what begins on Ray is said by the settings."""

from __future__ import annotations

import math

from naturelm.archive import pace
from naturelm.archive.pace import begins_here, worth_starting_ray
from naturelm.config.archive import JobSettings


def test_this_process_begins_unless_workers_or_a_cluster_are_named() -> None:
    assert begins_here(JobSettings())
    assert begins_here(JobSettings(workers=0))
    for named in ({"workers": 2}, {"address": "auto"}, {"max_workers": 4}, {"gpus_per_worker": 0.5}):
        assert not begins_here(JobSettings(**named))


def test_ray_is_worth_its_start_only_with_several_workers_and_sooner_with_more() -> None:
    assert worth_starting_ray(1) == math.inf
    assert math.inf > worth_starting_ray(2) > worth_starting_ray(8) > pace.RAY_START_S
