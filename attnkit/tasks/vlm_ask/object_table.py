"""Which objects each image has: from COCO's annotations, or from a table that was made of them before."""

from __future__ import annotations

import ast
import io
import json
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import ItemError, UsageError

from .answer_files import image_number
from .metrics.chair import Vocabulary, mentions
from .record_files import first, read_records

_ABOUT = "objects of images, by attnkit eval vlm-ask chair"


@dataclass(frozen=True)
class ObjectTable:
    """The classes that each image has, by its number, and the words that name them.

    synonyms    whether the words are more than the names of the classes
    captions    whether the captions of people were read
    """

    objects: Mapping[str, frozenset[str]]
    vocabulary: Vocabulary
    synonyms: bool
    captions: bool = True

    def text(self) -> str:
        """The table as a file that `read_objects` reads."""
        rows = {number: sorted(self.objects[number]) for number in sorted(self.objects, key=int)}
        document = {"about": _ABOUT, "synonyms": self.vocabulary.lines() if self.synonyms else None}
        return json.dumps({**document, "captions": self.captions, "objects": rows}, ensure_ascii=False) + "\n"


def read_objects(path: Path, synonyms: Path | None = None) -> ObjectTable:
    """The table behind --ref: a folder of COCO's annotations, or a table in JSON or as the pickle of CHAIR's script.

    synonyms    a list of the words of each class, one class a line; a table that has its own takes no other

    Raises UsageError for what is neither.
    """
    words = None if synonyms is None else read_synonyms(synonyms)
    if path.is_dir():
        return _of_annotations(path, words)
    try:
        with path.open("rb") as stream:
            pickled = stream.read(1) == b"\x80"
        table = _of_pickle(path) if pickled else _of_json(path, words)
    except ItemError as error:
        raise UsageError(str(error)) from error
    if words is not None and (pickled or table.vocabulary.classes != words.classes):
        raise UsageError(f"--synonyms {synonyms}: the table {path} was made with its own words; leave the option out")
    return table


def read_synonyms(path: Path) -> Vocabulary:
    """The words of each class, class first, between commas: a list, or a script of Python that holds it as a text.

    A script is only read, never run.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--synonyms {path}: cannot read it ({error})") from error
    if path.suffix == ".py":
        try:
            nodes = list(ast.walk(ast.parse(text)))
        except SyntaxError as error:
            raise UsageError(f"--synonyms {path}: no Python ({error.msg}, line {error.lineno})") from None
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        text = max((one for one in texts if one.count(", ") > 40), key=len, default="")
    lines = [line.strip().split(", ") for line in text.split("\n") if line.strip()]
    if not any(len(words) > 1 for words in lines):
        raise UsageError(f"--synonyms {path}: got no line such as `dog, puppy`, expected the words of each class")
    return Vocabulary.of_lines(lines)


def _of_annotations(folder: Path, words: Vocabulary | None) -> ObjectTable:
    instances, captions = sorted(folder.glob("instances_*.json")), sorted(folder.glob("captions_*.json"))
    if not instances:
        raise UsageError(f"--ref {folder}: no instances_*.json in it, expected a folder of COCO's annotations")
    documents = [(file, _document(file, "annotations", "categories")) for file in instances]
    objects: dict[str, set[str]] = {}
    names: dict[Any, str] = {}
    for file, document in documents:
        with _annotations_of(file):
            names |= {row["id"]: str(row["name"]) for row in document["categories"]}
    if words is not None and not set(names.values()) & set(words.classes):
        raise UsageError(
            f"--synonyms: has no word for any category of {folder}, such as {min(names.values(), default='none')!r}; "
            "expected a line for each, the category first"
        )
    vocabulary = words or Vocabulary.of_lines([name] for name in names.values())
    for file, document in documents:
        with _annotations_of(file):
            for image in document.get("images", ()):
                objects.setdefault(str(image["id"]), set())
            for row in document["annotations"]:
                name = names[row["category_id"]]
                objects.setdefault(str(row["image_id"]), set()).add(vocabulary.classes.get(name, name))
    for file in captions:
        document = _document(file, "annotations")
        with _annotations_of(file):
            for row in document["annotations"]:
                named = (name for _, name in mentions(row["caption"], vocabulary))
                objects.setdefault(str(row["image_id"]), set()).update(named)
    return ObjectTable(_frozen(objects), vocabulary, words is not None, bool(captions))


@contextmanager
def _annotations_of(file: Path) -> Iterator[None]:
    """UsageError for what annotations of COCO never lack."""
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--ref {file}: an entry is not as COCO has it ({type(error).__name__}: {error}); fetch the file again"
        ) from error


def _document(file: Path, *keys: str) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"--ref {file}: cannot be read as JSON ({error}); fetch it again") from None
    if not isinstance(document, dict) or any(not isinstance(document.get(key), list) for key in keys):
        raise UsageError(f"--ref {file}: no lists {' and '.join(keys)} in it, expected annotations of COCO")
    return document


def _of_json(path: Path, words: Vocabulary | None) -> ObjectTable:
    records = read_records(path, f"--ref {path}")
    document = records.document
    if document is not None and isinstance(document.get("objects"), dict):
        own = document.get("synonyms")
        if words is not None and own is None and document.get("about") == _ABOUT:
            raise UsageError(f"--synonyms: the table {path} was made without any; make it again from the annotations")
        vocabulary = words if own is None else Vocabulary.of_lines(own)
        return _table(path, document["objects"], vocabulary, bool(document.get("captions", True)))
    if document is not None and "image_id" not in document:
        objects: Mapping[Any, Any] = document
    else:
        for place, row in records.rows:
            if first(row, "image_id") is None or "objects" not in row:
                raise UsageError(
                    f"--ref {path}: {place}: got the keys {', '.join(list(row)[:6])}, expected image_id and a list of "
                    "objects, or a folder of COCO's annotations"
                )
        objects = {row["image_id"]: row["objects"] for _, row in records.rows}
    return _table(path, objects, words)


def _table(path: Path, objects: Mapping[Any, Any], words: Vocabulary | None, captions: bool = True) -> ObjectTable:
    found = {}
    for image, names in objects.items():
        number = image_number(str(image))
        if number is None or not isinstance(names, list | set | frozenset | tuple):
            raise UsageError(
                f"--ref {path}: got {str(image)[:40]!r} with {type(names).__name__}, expected the number of an image "
                "with a list of objects, or a folder of COCO's annotations"
            )
        found[number] = {str(name) for name in names}
    present: set[str] = set().union(*found.values())
    if words is not None and present and not present & set(words.classes.values()):
        raise UsageError(
            f"--synonyms: has no line for any object of {path}, such as {min(present)!r}; expected its first word"
        )
    vocabulary = words or Vocabulary.of_lines([name] for name in sorted(present))
    return ObjectTable(_frozen(found), vocabulary, words is not None, captions)


def _frozen(objects: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    return {image: frozenset(names) for image, names in objects.items()}


class _Stored:
    """What a pickled object was made of, and nothing that it could do."""


class _Unpickler(pickle.Unpickler):
    """Plain containers and the table of CHAIR's script; a pickle that names anything else is refused."""

    _plain: Mapping[tuple[str, str], Callable[..., Any]] = {
        ("collections", "defaultdict"): defaultdict,
        **{("builtins", kind.__name__): kind for kind in (set, frozenset, list, dict)},
    }

    def find_class(self, module: str, name: str) -> Any:
        if name in ("CHAIR", "WordNetLemmatizer"):
            return _Stored
        if (module, name) in self._plain:
            return self._plain[module, name]
        raise pickle.UnpicklingError(f"names {module}.{name}")


def _of_pickle(path: Path) -> ObjectTable:
    try:
        stored = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:
        raise UsageError(
            f"--ref {path}: a pickle that is not read ({error}), expected that of CHAIR's script"
        ) from None
    held = vars(stored) if isinstance(stored, _Stored) else {}
    objects, classes = held.get("imid_to_objects"), held.get("inverse_synonym_dict")
    if not isinstance(objects, dict) or not isinstance(classes, dict):
        raise UsageError(f"--ref {path}: a pickle without imid_to_objects, expected that of CHAIR's script")
    return _table(path, objects, Vocabulary({str(word): str(name) for word, name in classes.items()}))
