"""Which files make an ENVI pair. Light: a plan looks at thousands of names."""

from __future__ import annotations

import re
from pathlib import Path

DATA_SUFFIXES = ("", ".dat", ".img", ".raw", ".bin", ".bsq", ".bil", ".bip", ".sli", ".cube")
HEADER_START = re.compile(rb"(\xef\xbb\xbf)?ENVI[ \t]*(\r|\n|$)")
MOST_HEADER_BYTES = 64_000_000
# bytes of a sample by ENVI's code of its type
SAMPLE_BYTES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 9: 16, 12: 2, 13: 4, 14: 8, 15: 8}


def is_header(head: bytes) -> bool:
    """Whether a file that begins so is an ENVI header: a Radiance picture, also called .hdr, begins otherwise."""
    return HEADER_START.match(head) is not None


def data_file(header: Path) -> Path | None:
    """The data of a header, beside it under the same name; None where there is none.

    Of several, the one whose size fits; a suffix that is not usual counts where the size fits.
    """
    stem = header.with_suffix("")
    names = [stem.name + suffix for suffix in DATA_SUFFIXES]
    usual = dict.fromkeys((*names, *(stem.name + suffix.upper() for suffix in DATA_SUFFIXES)))
    found = [path for path in (stem.with_name(name) for name in usual if name) if path.is_file() and path != header]
    if len(found) == 1:
        return found[0]
    size = _data_bytes(header)
    if not found and size:
        try:
            others = sorted(path for path in header.parent.iterdir() if path.name.startswith(stem.name + "."))
        except OSError:
            return None
        found = [path for path in others if path.suffix.lower() != ".hdr" and _size(path) == size]
    return next((path for path in found if _size(path) == size), found[0] if found else None)


def header_of(data: Path) -> Path | None:
    """The header of a data file: NAME.SUFFIX.hdr or NAME.hdr, if this is the data file that belongs to it."""
    for suffix in (".hdr", ".HDR"):
        for header in (data.with_name(data.name + suffix), data.with_suffix(suffix)):
            if header != data and _begins_as_header(header) and data_file(header) == data:
                return header
    return None


def _begins_as_header(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_header(stream.read(64))
    except OSError:
        return False


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _data_bytes(header: Path) -> int | None:
    """What the data file of a header should hold; None where the header does not say it plainly."""
    try:
        with header.open("rb") as stream:
            text = stream.read(MOST_HEADER_BYTES).decode("latin-1")
    except OSError:
        return None
    plain = re.sub(r"\{[^}]*\}", "", text)
    pattern = r"^[ \t]*(samples|lines|bands|data type|header offset)[ \t]*=[ \t]*(\d+)[ \t\r]*$"
    fields = {name.lower(): int(value) for name, value in re.findall(pattern, plain, re.M | re.I)}
    try:
        count = fields["samples"] * fields["lines"] * fields["bands"]
        return count * SAMPLE_BYTES[fields["data type"]] + fields.get("header offset", 0)
    except KeyError:
        return None
