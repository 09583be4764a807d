"""Which files are recordings, by their names and by their first bytes; what to do with those that are not read here.

Recorders write formats that only their makers' programs read, phones and cameras write compressed ones. Such a file
is a recording all the same: it has a row, which names the program that turns it into WAV.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What is read here. `kwav`, `xwav` and `x.wav` are WAV files of Kaleidoscope and of HARP hydrophones.
# fmt: off
READ_EXTENSIONS = frozenset({
    "wav", "wave", "bwf", "rf64", "bw64", "w64", "kwav", "xwav", "flac", "mp3", "mp2", "mp1", "mpa", "mpga",
    "ogg", "oga", "opus", "aif", "aiff", "aifc", "afc", "caf", "au", "snd", "voc", "sph", "nist",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Unread:
    """A kind of recording that is not read here.

    Attributes
    ----------
    what : str
        The kind, with its article.
    remedy : str
        What turns it into a file that is read.
    """

    what: str
    remedy: str

    @property
    def sentence(self) -> str:
        return f"is {self.what}; {self.remedy}"


CONVERT = "convert it with ffmpeg: ffmpeg -i FILE FILE.flac"
"""What to do with the formats of no recorder in particular."""

_KALEIDOSCOPE = "convert it to WAV with Kaleidoscope (Wildlife Acoustics, no licence needed)"
_SOUNDTRAP = "extract the WAV files with SoundTrap Host (Ocean Instruments)"
_ANABAT = Unread(
    "a zero-crossing file of an Anabat, which holds the times of crossings and no sound",
    "look at it with Anabat Insight (Titley Scientific), and process the full-spectrum WAV files of the recorder",
)
_MPEG_4 = Unread("compressed sound in an MPEG-4 file", CONVERT)
_VIDEO = Unread("a video", CONVERT.replace("convert it", "extract its sound"))
_DICTATION = Unread("a dictation", "export it as WAV with the program of the dictation recorder")
_DSD = Unread("a DSD recording, which holds one-bit samples", CONVERT)
_COMPRESSED = Unread("compressed sound", CONVERT)

_UNREAD: dict[str, Unread] = {
    "wac": Unread("a WAC recording of a Song Meter", _KALEIDOSCOPE),
    "w4v": Unread("a W4V recording of a Song Meter", _KALEIDOSCOPE),
    "sud": Unread("a SUD recording of a SoundTrap", _SOUNDTRAP),
    "bcl": Unread("a list of clicks that a SoundTrap detected", _SOUNDTRAP),
    "dwv": Unread("a file of clicks that a SoundTrap detected", _SOUNDTRAP),
    "x3": Unread("an X3 recording of a hydrophone", "convert it to WAV with PAMGuard or the X3 tools"),
    "x3a": Unread("an X3 recording of a hydrophone", "convert it to WAV with PAMGuard or the X3 tools"),
    "dtg": Unread("a recording of a DTAG", "convert it to WAV with the DTAG tools"),
    "dsg": Unread("a recording of a DSG-Ocean", "convert it to WAV with dsg2wav (Loggerhead Instruments)"),
    "amx": Unread(
        "a recording of a Loggerhead tag", "convert it to WAV with the tools of Loggerhead Instruments"
    ),
    "aud": Unread(
        "a recording in a format of its recorder", "convert it to WAV with the program of the recorder"
    ),
    "raw": Unread(
        "a file of samples without a header, as a batcorder writes it",
        "export it as WAV with bcAdmin (ecoObs), or with the program of the recorder",
    ),
    "zc": _ANABAT,
    "zca": _ANABAT,
    "m4a": _MPEG_4,
    "m4b": _MPEG_4,
    "qta": _MPEG_4,
    "3ga": _MPEG_4,
    "aac": Unread("AAC sound", CONVERT),
    "amr": Unread("AMR sound of a phone", CONVERT),
    "awb": Unread("AMR sound of a phone", CONVERT),
    "wma": Unread("Windows Media sound", CONVERT),
    "dsf": _DSD,
    "dff": _DSD,
    "dss": _DICTATION,
    "ds2": _DICTATION,
    "dvf": _DICTATION,
    "msv": _DICTATION,
    **dict.fromkeys(
        ("ape", "wv", "tta", "tak", "shn", "mpc", "ac3", "ra", "spx", "mka", "weba"), _COMPRESSED
    ),
    **dict.fromkeys(
        ("mp4", "m4v", "mov", "3gp", "3g2", "avi", "mkv", "webm", "wmv", "mts", "mpg", "mpeg"), _VIDEO
    ),
}

AUDIO_EXTENSIONS = READ_EXTENSIONS | frozenset(_UNREAD)
"""How recordings end, in lower case and without the dot."""

# Anabats number the files of a minute in the extension: `L6171932.45#`.
_ANABAT_EXTENSION = re.compile(r"[0-9a-z]{2}#")


def is_recording_extension(extension: str) -> bool:
    """Whether a file that ends so, in lower case and without the dot, is a recording."""
    return extension in AUDIO_EXTENSIONS or _ANABAT_EXTENSION.fullmatch(extension) is not None


def extension_of(name: str) -> str:
    """What follows the last dot of a file name, in lower case; empty where nothing does."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def unread_by_name(name: str) -> Unread | None:
    """The kind of recording that a file name announces, where it is one that is not read here."""
    extension = extension_of(name)
    return _ANABAT if _ANABAT_EXTENSION.fullmatch(extension) else _UNREAD.get(extension)


# Where in the file the bytes are, and what they are.
_UNREAD_CONTENT: tuple[tuple[int, bytes, Unread], ...] = (
    (0, b"WAac", _UNREAD["wac"]),
    (0, b"X3ARCHIV", _UNREAD["x3"]),
    (0, b"#!AMR", _UNREAD["amr"]),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _UNREAD["wma"]),
    (0, b"wvpk", Unread("a WavPack recording", CONVERT)),
    (0, b"MAC ", Unread("Monkey's Audio", CONVERT)),
    (0, b"TTA1", _COMPRESSED),
    (0, b"tBaK", _COMPRESSED),
    (0, b"ajkg", _COMPRESSED),
    (0, b"MPCK", _COMPRESSED),
    (0, b"MP+", _COMPRESSED),
    (0, b"\x0b\x77", _COMPRESSED),
    (0, b"DSD ", _DSD),
    (0, b"FRM8", _DSD),
    (1, b"dss", _DICTATION),
    (1, b"ds2", _DICTATION),
    (0, b"MS_VOICE", _DICTATION),
    (8, b"AVI ", _VIDEO),
    (0, b"\x1a\x45\xdf\xa3", _VIDEO),
    (0, b"\0\0\x01\xba", _VIDEO),
    (0, b"\0\0\x01\xb3", _VIDEO),
    (4, b"ftypqt", _VIDEO),
    (4, b"ftypM4A", _MPEG_4),
    (4, b"ftyp", Unread("sound or video in an MPEG-4 file", CONVERT)),
    (4, b"moov", _VIDEO),
    (
        4,
        b"mdat",
        Unread("the middle of an MPEG-4 file, whose recorder did not finish it", "repair it with untrunc"),
    ),
)
_NOT_SOUND: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (8, b"WEBP", "a WebP picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"\0\x05\x16\x07", "what macOS keeps of a file, without the file"),
    (0, b"MThd", "a MIDI file, which holds notes and no sound"),
)
_ADTS_HEADS = (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9")
_TEXT_BYTES = 512


def unread_by_content(head: bytes) -> Unread | None:
    """The kind of recording that a file's first bytes show, where it is one that is not read here."""
    for offset, magic, unread in _UNREAD_CONTENT:
        if head.startswith(magic, offset):
            return unread
    return _UNREAD["aac"] if head.startswith(_ADTS_HEADS) and not is_uniform(head) else None


def not_sound(head: bytes) -> str | None:
    """What a file is, with its article, whose first bytes show that it is not a recording; None where they do not."""
    for offset, magic, what in _NOT_SOUND:
        if head.startswith(magic, offset):
            return what
    return "text" if _is_text(head[:_TEXT_BYTES]) else None


def is_uniform(content: bytes) -> bool:
    """Whether all bytes are zeros, or all are 0xFF as in erased flash memory."""
    return not content.strip(b"\0") or not content.strip(b"\xff")


def _is_text(head: bytes) -> bool:
    # A character may be cut at the end.
    text = head.decode("utf-8", "ignore")
    return (
        len(head) - len(text.encode()) < 4
        and bool(text)
        and all(character.isprintable() or character in "\t\r\n\f\ufeff" for character in text)
    )
