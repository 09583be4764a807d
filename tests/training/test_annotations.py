"""Labels in the forms that people have them in, and the windows that are made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from naturelm.errors import NaturelmError
from naturelm.training.annotations import Annotated
from naturelm.training.labelled_windows import Clip, label_windows, read_labels, split

RATE_HZ = 16_000


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A morning of two stations: 30 s each, and 5 s at the end."""
    directory = tmp_path / "audio"
    for name, seconds in (
        ("007/20260501_050000.wav", 30),
        ("湿地/20260501_060000.wav", 30),
        ("湿地/20260501_070000.WAV", 5),
    ):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(directory / name, np.zeros(seconds * RATE_HZ, np.float32), RATE_HZ)
    return directory


def spans(source: Path, audio: Path) -> dict[str, list[tuple[float, float, str]]]:
    return {known.path.name: known.spans for known in read_labels(source, audio)}


RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin Path\t"
    "File Offset (s)\tCommon Name\n"
    "1\tSpectrogram 1\t1\t2.0\t4.5\t0\t8000\tC:\\cards\\007\\20260501_050000.wav\t2.0\tbarn_owl\n"
    "2\tSpectrogram 1\t1\t31.0\t32.0\t0\t8000\tC:\\cards\\湿地\\20260501_060000.wav\t1.0\tFrog\n"
)
OWL_AND_FROG = {
    "20260501_050000.wav": [(2.0, 4.5, "Barn owl")],
    "20260501_060000.wav": [(1.0, 2.0, "Frog")],
}
KALEIDOSCOPE = (
    "INDIR,FOLDER,IN FILE,OFFSET,DURATION,AUTO ID*,MANUAL ID*\n"
    "D:\\cards,007,20260501_050000.wav,2,2.5,NOISE,barn_owl\n"
    "D:\\cards,湿地,20260501_060000.wav,1,1,Frog,\n"
    "D:\\cards,湿地,20260501_060000.wav,9,1,NoID,\n"
)
BIRDNET = (
    "Start (s),End (s),Scientific name,Common name,Confidence,File\n"
    "2.0,4.5,Tyto alba,barn_owl,0.9,/home/someone/20260501_050000.wav\n"
    "1.0,2.0,Rana,Frog,0.8,/home/someone/20260501_060000.wav\n"
)


@pytest.mark.parametrize(
    ("name", "text"), [("raven.txt", RAVEN), ("kaleidoscope.csv", KALEIDOSCOPE), ("birdnet.csv", BIRDNET)]
)
def test_tables_of_other_programs_give_the_same_labels(audio, tmp_path, name, text):
    table = tmp_path / name
    table.write_text(text, encoding="utf-8")
    assert spans(table, audio) == OWL_AND_FROG


@pytest.mark.parametrize(
    "name", ["20260501_050000.txt", "20260501_050000.wav.txt", "20260501_050000.Table.1.selections.txt"]
)
def test_a_table_may_name_its_recording_by_its_own_name(audio, tmp_path, name):
    (tmp_path / "labels").mkdir()
    table = tmp_path / "labels" / name
    if "selections" in name:
        table.write_text("Begin Time (s)\tEnd Time (s)\tAnnotation\n2.0\t4.5\tbarn owl\n5\t6\tnocall\n")
    else:
        table.write_text("2.0\t4.5\tbarn owl\n\\\t100.0\t2000.0\n5\t6\tnocall\n")
    expected = {"20260501_050000.wav": [(2.0, 4.5, "Barn owl"), (5.0, 6.0, "")]}
    assert spans(table.parent, audio) == expected
    assert spans(table, audio) == expected


def test_a_column_of_file_names_labels_whole_recordings(audio, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("filename;species\n007/20260501_050000.wav;owl\n")
    (known,) = read_labels(table, audio)
    assert known.spans == [(0.0, float("inf"), "Owl")]
    assert known.station == "007"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("filename,label,start_s,end_s\nnone.wav,Owl,0,1\n", "row 2: there is no recording none.wav below"),
        (
            "filename,label,start_s,end_s\n20260501_050000.wav,Owl,x,1\n",
            "row 2: start_s is 'x', not a number",
        ),
        (
            "filename,label,start_s,end_s\n20260501_050000.wav,Owl,2,1\n",
            "row 2: starts at 2 s and ends at 1 s",
        ),
        (
            "filename,label,start_s\n20260501_050000.wav,Owl,2\n",
            "row 2: has start_s without an end or duration",
        ),
        ("filename,rating\n20260501_050000.wav,5\n", "has no column for the label"),
        ("some text\n", "row 1: is 'some text'; a table needs a header"),
        ("", "contains no labels"),
    ],
)
def test_invalid_labels_are_refused(audio, tmp_path, text, expected):
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(NaturelmError) as caught:
        read_labels(table, audio)
    assert expected in str(caught.value)


def test_places_that_do_not_exist_are_refused(audio, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(BIRDNET)
    with pytest.raises(NaturelmError, match="there is no such file or directory; give the labels"):
        read_labels(tmp_path / "none", audio)
    with pytest.raises(NaturelmError, match="give --audio the directory of the recordings"):
        read_labels(table, tmp_path / "none")
    with pytest.raises(NaturelmError, match="--audio is missing"):
        read_labels(table, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NaturelmError, match="contains no recordings; give --audio"):
        read_labels(table, tmp_path / "empty")


def test_a_window_has_all_labels_of_which_it_holds_enough(audio):
    path = audio / "007/20260501_050000.wav"
    known = Annotated(
        path,
        [(2.0, 4.0, "Owl"), (9.8, 13.0, "Frog"), (9.0, 9.4, "Wren"), (25.0, 25.0, "Bat"), (12.0, 13.0, "")],
        station="007",
    )
    clips = label_windows([known], 10.0, only_labelled=True, seed=0)
    assert [(clip.span, clip.names) for clip in clips] == [
        ((0.0, 10.0), ("Owl", "Wren")),
        ((10.0, 20.0), ("Frog",)),
        ((20.0, 30.0), ("Bat",)),
    ]


def test_stretches_without_a_label_are_nothing_to_name_unless_left_out(audio):
    known = Annotated(
        audio / "007/20260501_050000.wav", [(2.0, 4.0, "Owl"), (12.0, 13.0, "Owl"), (14.0, 15.0, "Owl")]
    )
    both = [(clip.span, clip.names) for clip in label_windows([known], 10.0, only_labelled=False, seed=0)]
    assert both == [((0.0, 10.0), ("Owl",)), ((10.0, 20.0), ("Owl",)), ((20.0, 30.0), ())]
    assert len(label_windows([known], 10.0, only_labelled=True, seed=0)) == 2


def clips(*places: tuple[str, str, str]) -> list[Clip]:
    return [
        Clip(Path(recording), (float(number), number + 1.0), (label,), station)
        for number, (station, recording, label) in enumerate(places)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_no_station_is_on_both_sides(seed):
    places = [(f"S{n % 5}", f"{n % 10}.wav", ("Owl", "Frog")[n % 2]) for n in range(60)]
    train, held_out, kind = split(clips(*places), seed)
    assert kind == "station"
    assert len(train) + len(held_out) == 60
    assert {clip.station for clip in train}.isdisjoint(clip.station for clip in held_out)
    for side in (train, held_out):
        assert {clip.names[0] for clip in side} == {"Owl", "Frog"}


@pytest.mark.parametrize("seed", range(5))
def test_without_stations_no_recording_is_on_both_sides_and_a_rare_label_stays(seed):
    places = [("", f"{n % 20}.wav", "Owl") for n in range(40)] + [("", "rare.wav", "Eagle")] * 3
    train, held_out, kind = split(clips(*places), seed)
    assert kind == "recording"
    assert {clip.path for clip in train}.isdisjoint(clip.path for clip in held_out)
    assert "Eagle" in {clip.names[0] for clip in train}
    assert 0.1 < len(held_out) / len(places) < 0.4


def test_one_recording_cannot_be_split():
    with pytest.raises(NaturelmError, match="the labels are about 1 recording"):
        split(clips(("", "a.wav", "Owl"), ("", "a.wav", "Owl")), 0)
