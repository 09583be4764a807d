"""Label lists in the forms that people have them in."""

from __future__ import annotations

import pytest

from naturelm.config.label_lists import read_label_list
from naturelm.errors import NaturelmError

OWLS = ("Tawny Owl", "Little Owl")


@pytest.mark.parametrize(
    "content",
    [
        "Tawny Owl\nLittle Owl\n",
        "Tawny Owl\r\nLittle Owl\r\n\r\n",
        "\ufeffTawny Owl\nLittle Owl",
        "# owls of the valley\n\nTawny Owl\n  Little Owl  \n",
        "Tawny Owl\nLittle Owl\ntawny owl\nTAWNY  OWL\n",
        "label\nTawny Owl\nLittle Owl\n",
        "Label\nTawny Owl\nLittle Owl\n",
        "Common Name,Scientific Name\nTawny Owl,Strix aluco\nLittle Owl,Athene noctua\n",
        "Scientific Name,Common Name\nStrix aluco,Tawny Owl\nAthene noctua,Little Owl\n",
        "common name;scientific name\nTawny Owl;Strix aluco\nLittle Owl;Athene noctua\n",
        "sep=;\nCommon Name;Scientific Name\nTawny Owl;Strix aluco\nLittle Owl;Athene noctua\n",
        "SPECIES_CODE\tPRIMARY_COM_NAME\nx\tTawny Owl\ny\tLittle Owl\n",
        "Strix aluco_Tawny Owl\nAthene noctua_Little Owl\n",
        "label\nStrix aluco_Tawny Owl\nAthene noctua_Little Owl\n",
        '"Tawny Owl"\n"Little Owl"\n',
        'label,notes\nTawny Owl,"common, calls all night"\nLittle Owl,\n,\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_that_people_have_are_read(tmp_path, content, encoding):
    path = tmp_path / "owls.csv"
    path.write_bytes(content.removeprefix("\ufeff" if encoding == "utf-16" else "").encode(encoding))
    assert read_label_list(path) == {"": OWLS}


def test_labels_keep_commas_quotes_and_any_script(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text('"Owl, tawny"\n灰林鸮\nwolf "howl"\nT. rex_1\n', encoding="utf-8")
    assert read_label_list(path)[""] == ("Owl, tawny", "灰林鸮", 'wolf "howl"', "T. rex_1")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_station_column_restricts_labels(tmp_path, delimiter):
    path = tmp_path / "labels.csv"
    rows = [["Label", "Station"], ["Owl", ""], ["Bittern", "marsh"], ["Owl", "marsh"], ["Wolf", "007"]]
    path.write_text("".join(delimiter.join(row) + "\n" for row in rows), encoding="utf-8")
    assert read_label_list(path) == {"": ("Owl",), "marsh": ("Owl", "Bittern"), "007": ("Owl", "Wolf")}


def test_birdnet_classes_that_are_no_species_are_labels_too(tmp_path):
    path = tmp_path / "BirdNET_Labels.txt"
    path.write_text(
        "Strix aluco_Tawny Owl\nEngine_Engine\nHuman non-vocal_Human non-vocal\n", encoding="utf-8"
    )
    assert read_label_list(path)[""] == ("Tawny Owl", "Engine", "Human non-vocal")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (
            b"Tawny Owl,Strix aluco\nLittle Owl,Athene noctua\n",
            "line 1 is 'Tawny Owl,Strix aluco', separated by a comma",
        ),
        (b"Tawny Owl;marsh\n", "separated by a semicolon"),
        (b"# nothing\n\n", "contains no labels"),
        (b"", "contains no labels"),
        (b"label,station\n", "contains no labels"),
        (b"label,station\nOwl,marsh\n,ridge\n", "line 3 has no label"),
        (b"# owls\nlabel;station\n;ridge\n", "line 3 has no label"),
        ("Käuzchen\n".encode("cp1252"), "not UTF-8 text"),
        (b"PK\x03\x04\x00\x00spreadsheet.xlsx", "not a text file"),
        (b"x" * 5000, "line 1 is not a label"),
        (b"Owl\x07\n", "line 1 is not a label"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_sentence(tmp_path, content, named):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(NaturelmError) as caught:
        read_label_list(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert named in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 420


def test_missing_file_names_the_setting(tmp_path):
    with pytest.raises(NaturelmError, match="check labels_file"):
        read_label_list(tmp_path / "none.txt")
