"""Captioned cut-outs with an alpha channel: Tux Paint's stamps, and the pictographs of an emoji font."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attnkit.runtime.errors import UsageError

# of five cut-outs one is never trained on
HELD_OUT_SHARE = 5
# longest side that a cut-out is kept at
SIDE = 104
# size at which the font holds its bitmaps
FONT_SIZE = 109
ARTICLES = {"a", "an", "the", "our", "one"}
MOST_WORDS = 3
# word for all that a folder of the stamps holds, by the beginning of its path; the longest wins
GROUPS = {
    "animals": "animal", "animals/birds": "bird", "animals/fish": "fish", "animals/insects": "insect",
    "clothes": "piece of clothing", "clothes/hats": "hat", "food": "food", "food/fruit": "fruit",
    "food/vegetables": "vegetable", "hobbies/music": "musical instrument", "household": "household item",
    "household/tools": "tool", "plants": "plant", "plants/flowers": "flower", "plants/trees": "tree",
    "seasonal": "holiday item", "space": "thing in space", "sports": "sports item", "town/flags": "flag",
    "town/houses": "building", "town/monuments": "monument", "town/roadsigns": "road sign", "vehicles": "vehicle",
}  # fmt: skip
# what a group belongs to as well: nothing of the wider one makes a "no" about the narrower, or the other way round
WIDER = {
    "bird": "animal", "fish": "animal", "insect": "animal", "fruit": "food", "vegetable": "food",
    "hat": "piece of clothing", "tool": "household item", "flower": "plant", "tree": "plant",
}  # fmt: skip
# first and last code point of pictographs of one group
PICTOGRAPHS = (
    (0x1F400, 0x1F43F, "animal"), (0x1F980, 0x1F9AE, "animal"), (0x1F32D, 0x1F330, "food"), (0x1F331, 0x1F344, "plant"),
    (0x1F345, 0x1F353, "fruit"), (0x1F354, 0x1F36F, "food"), (0x1F950, 0x1F96F, "food"), (0x1F680, 0x1F6A4, "vehicle"),
    (0x1F3B7, 0x1F3BB, "musical instrument"), (0x1F3E0, 0x1F3F0, "building"), (0x1F451, 0x1F462, "piece of clothing"),
    (0x1F527, 0x1F52A, "tool"), (0x1F6F4, 0x1F6FA, "vehicle"),
)  # fmt: skip
# in the name of a pictograph that is no plain thing
UNPLAIN = {
    "symbol", "sign", "mark", "with", "of", "and", "no", "for", "prints", "restricted", "extended", "oncoming", "nose",
    "womans", "mans", "japanese", "love", "steaming", "paw", "station", "ribbon", "baby",
}  # fmt: skip
SAME_PLURAL = {"fish", "sheep", "deer", "bison"}
UNUSUAL_PLURAL = {
    "mouse": "mice",
    "goose": "geese",
    "leaf": "leaves",
    "knife": "knives",
    "person": "people",
    "ox": "oxen",
}


@dataclass(frozen=True)
class Cutout:
    """One thing that can be pasted: what it is called, the group it belongs to, and where its picture is.

    code is the code point of a pictograph of the font at `path`, or None where `path` is a picture.
    """

    name: str
    group: str | None
    family: str
    path: Path
    code: int | None = None

    @property
    def held_out(self) -> bool:
        """Whether it is kept for tests: decided by its file's name, or its own where a font holds it."""
        key = self.path.name if self.code is None else self.name
        return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_SHARE == 0

    @property
    def groups(self) -> set[str]:
        """Its group and the wider one."""
        return {word for word in (self.group, WIDER.get(self.group or "")) if word}


def find_cutouts(folder: Path) -> list[Cutout]:
    """The cut-outs of a folder of unpacked packages, sorted: stamps (X.png beside X.txt) and NotoColorEmoji.ttf."""
    found = []
    for root in sorted(path for path in folder.rglob("stamps") if path.is_dir()):
        for picture in sorted(root.rglob("*.png")):
            cutout = _stamp(root, picture)
            if cutout is not None:
                found.append(cutout)
    for font in sorted(folder.rglob("NotoColorEmoji.ttf")):
        found += _pictographs(font)
    if not found:
        raise UsageError(f"--data {folder}: no captioned cut-outs, expected Tux Paint's folder 'stamps' in it")
    return found


def name_in(caption: str) -> str | None:
    """The thing that a caption such as 'A brown hen.' names, or None where it says more, or less, than a name."""
    sentence = re.split(r"[.!?;:(\u2014\u2013]", caption.strip())[0].lower()
    words = re.sub(r"[“”\"]", "", sentence).split()
    if not words or words[0] not in ARTICLES or not 1 < len(words) <= MOST_WORDS + 1 or "of" in words:
        return None
    if not all(re.fullmatch(r"[a-zéü]{2,}(-[a-z]{2,})?", word) for word in words[1:]):
        return None
    return " ".join(words[1:])


def plural(name: str) -> str:
    """Plural of a name whose last word is its noun."""
    *first, noun = name.split()
    if noun in SAME_PLURAL or noun.endswith("fish"):
        several = noun
    elif noun in UNUSUAL_PLURAL:
        several = UNUSUAL_PLURAL[noun]
    elif re.search(r"(s|x|ch|sh)$", noun):
        several = f"{noun}es"
    else:
        several = f"{noun[:-1]}ies" if re.search(r"[^aeiou]y$", noun) else f"{noun}s"
    return " ".join([*first, several])


@lru_cache(maxsize=4096)
def read_cutout(cutout: Cutout) -> NDArray[np.uint8]:
    """Its picture [rows, columns, 4] uint8, cut to what can be seen, its longest side at most `SIDE`."""
    from PIL import Image, ImageDraw, ImageFont

    if cutout.code is None:
        with Image.open(cutout.path) as opened:
            picture = opened.convert("RGBA")
    else:
        picture = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
        font = ImageFont.truetype(str(cutout.path), FONT_SIZE)
        ImageDraw.Draw(picture).text((8, 8), chr(cutout.code), font=font, embedded_color=True)
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 32)).getbbox()
    picture = picture.crop(box) if box else picture
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    return np.asarray(picture)


def _stamp(root: Path, picture: Path) -> Cutout | None:
    inside = picture.relative_to(root).parent.as_posix()
    text = picture.with_suffix(".txt")
    if inside.startswith("symbols") or not text.is_file():
        return None
    lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
    name = name_in(lines[0]) if lines else None
    if name is None:
        return None
    prefixes = [prefix for prefix in GROUPS if f"{inside}/".startswith(f"{prefix}/")]
    group = GROUPS[max(prefixes, key=len)] if prefixes else None
    return Cutout(name, group, inside.removesuffix("/cartoon"), picture)


def _pictographs(font: Path) -> list[Cutout]:
    found = []
    for first, last, group in PICTOGRAPHS:
        for code in range(first, last + 1):
            words = unicodedata.name(chr(code), "").lower().removesuffix(" face").split()
            if words and len(words) <= MOST_WORDS and not UNPLAIN & set(words) and "-" not in "".join(words):
                name = " ".join(words)
                found.append(Cutout(name, group, f"pictographs/{name}", font, code))
    return found
