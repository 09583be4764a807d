"""Ids depend on content and place, and on nothing else."""

from __future__ import annotations

from naturelm.ids import EDGE_BYTES, file_recording_id, recording_id, segment_id, settings_hash


def test_recording_id_is_the_same_on_every_machine():
    assert recording_id("S1/a.wav", 3, b"abc", b"abc") == "99156441bef4b02a1c3264bb898ca98b"


def test_recording_id_changes_with_path_size_and_edges():
    base = ("S1/a.wav", 300, b"head", b"tail")
    ids = {recording_id(*base)}
    ids.add(recording_id("S2/a.wav", *base[1:]))
    ids.add(recording_id(base[0], 301, *base[2:]))
    ids.add(recording_id(*base[:2], b"HEAD", base[3]))
    ids.add(recording_id(*base[:3], b"TAIL"))
    # The border between head and tail counts.
    ids.add(recording_id(*base[:2], b"headt", b"ail"))
    assert len(ids) == 6


def test_file_id_reads_only_the_edges(tmp_path):
    path = tmp_path / "a.wav"
    content = bytearray(b"\1" * (3 * EDGE_BYTES))
    path.write_bytes(content)
    before = file_recording_id(path, "a.wav")
    assert before == recording_id(
        "a.wav", len(content), bytes(content[:EDGE_BYTES]), bytes(content[-EDGE_BYTES:])
    )
    content[EDGE_BYTES + 1] = 2
    path.write_bytes(content)
    assert file_recording_id(path, "a.wav") == before
    content[0] = 2
    path.write_bytes(content)
    assert file_recording_id(path, "a.wav") != before


def test_undecodable_file_name_has_an_id():
    name = b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    assert len(recording_id(name, 0, b"", b"")) == 32


def test_segment_id_names_recording_and_first_window():
    assert segment_id("ab" * 16, 60) == "ab" * 16 + "-000060"


def test_settings_hash_ignores_the_order_of_keys():
    assert settings_hash({"a": 1, "b": {"c": 2, "d": 3}}) == settings_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})
