"""Names that data sets use for FER2013's classes and parts, and names of files that are not data."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TypeVar

from emotion.data.faces import EMOTIONS, PRIVATE_TEST, PUBLIC_TEST, TEST, TRAINING
from emotion.errors import UserError, counted

Key = TypeVar("Key")

CLASS_SYNONYMS = {
    "angry": ("anger",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared", "frightened"),
    "happy": ("happiness", "joy", "joyful"),
    "sad": ("sadness",),
    "surprise": ("surprised", "suprise"),
    "neutral": ("neutrality",),
    "contempt": ("contemptuous",),
}
"""FER2013's classes and contempt, and other words for them."""

UNCLEAR = "unclear"
"""Label that prediction gives blank faces, and those whose most likely class is improbable; no class has this name."""

KNOWN_CLASSES = tuple(CLASS_SYNONYMS)
CODES = {
    **{"an": "angry", "di": "disgust", "fe": "fear", "af": "fear", "ha": "happy"},
    **{"sa": "sad", "su": "surprise", "ne": "neutral"},
}
"""The two letters by which JAFFE and KDEF name their classes."""

MAX_CLASSES = 255

FILLERS = ("face", "faces", "facial", "expression", "expressions", "emotion", "emotions", "image", "images", "img")
"""Words that are added to the name of a class, as in happy_faces."""

RAF_DB = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
"""The classes that RAF-DB numbers from 1 to 7."""

PARTS = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest", "public"), PUBLIC_TEST),
    **dict.fromkeys(("test", "testing", "privatetest", "private"), PRIVATE_TEST),
}
"""Names of the parts of a data set, and their usage."""

LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin")
"""Files and folders that operating systems add, in lower case; hidden ones begin with a dot."""

_CLASS_OF_WORD = {word: name for name, others in CLASS_SYNONYMS.items() for word in (name, *others)}


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden or was added by an operating system."""
    return name.startswith(".") or name.lower() in LITTER


def part_usage(name: str) -> int | None:
    """Return the usage of a part such as train, Validation, public_test or split=test; None for any other name."""
    word = re.sub(r"[^a-z]", "", name.lower().rpartition("=")[2])
    return PARTS.get(re.sub(r"^(fer|images?)|(set|data|images?)$", "", word))


def part_word(file: PurePath) -> str:
    """Return the word of a file's name, or its folder's name, that names a part; empty if there is none."""
    words = [*re.split(r"[-_.]", file.name), file.stem, file.parent.name]
    return next((word for word in words if part_usage(word) is not None), "")


def part_usages(names: Mapping[Key, str]) -> dict[Key, int]:
    """Return the usage of each part by its name, in the order of usages; Training for an unknown name.

    Without a validation part, a part `test` merges both test sets.
    """
    usages = {key: part_usage(name) for key, name in names.items()}
    if PUBLIC_TEST not in usages.values():
        merged = [key for key, usage in usages.items() if usage == PRIVATE_TEST and "private" not in names[key].lower()]
        usages |= dict.fromkeys(merged, TEST)
    return dict(sorted(((key, usage or TRAINING) for key, usage in usages.items()), key=lambda part: part[1]))


def known_class(name: str) -> str | None:
    """Return FER2013's name, or contempt, of a class in any case and beside numbers and `FILLERS`; None if unknown."""
    words = [word for word in re.split(r"[\d\W_]+", name.lower()) if word and word not in FILLERS]
    return _CLASS_OF_WORD.get(" ".join(words))


def part_and_class(name: str) -> tuple[str, str] | None:
    """Return the part and the class that a name such as train_happy or Happy-test states; None for any other name."""
    words = [word for word in re.split(r"[\W_]+", name) if word]
    for part, rest in ((words[:1], words[1:]), (words[-1:], words[:-1])):
        if rest and part_usage(part[0]) is not None and known_class(" ".join(rest)):
            return part[0], "_".join(rest)
    return None


def class_key(name: str) -> str:
    """Return the same key for all spellings of a class: FER2013's name for it, else the name in lower case."""
    return known_class(name) or unicodedata.normalize("NFC", name).casefold()


def first_names(schemes: Iterable[Iterable[str]]) -> dict[str, str]:
    """Return for each class of several label schemes the name that the first of them gives it."""
    names = [name for scheme in schemes for name in scheme]
    first = {class_key(name): name for name in reversed(names)}
    return {name: first[class_key(name)] for name in names}


def merge_spellings(labels: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return the class of each label, and notes about classes with several spellings."""
    spellings: dict[str, list[str]] = {}
    for label in labels:
        spellings.setdefault(class_key(label), []).append(label)
    merged = {one: key if len(ones) > 1 else one for key, ones in spellings.items() for one in ones}
    return merged, [f"labels {', '.join(ones)}: read as {key}" for key, ones in spellings.items() if len(ones) > 1]


def resolve_classes(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the classes that names stand for, FER2013's first, and the class of each name.

    Numbers from 0 to at most 6 are FER2013's, unless they count fewer than five classes (0, 1, 2); numbers from 1 to 7
    are RAF-DB's. Names that are all in `CODES` are read as those classes. Unknown names are classes of their own.

    Raises:
        UserError: There are more than `MAX_CLASSES` classes.
    """
    merged, _ = merge_spellings(dict.fromkeys(names))
    class_of = {name: known_class(name) or spelling for name, spelling in merged.items()}
    if len(class_of) > 1 and all(name.lower() in CODES for name in class_of):
        class_of = {name: CODES[name.lower()] for name in class_of}
    numbers = {name: int(name) for name in class_of if name.isdecimal() and len(name) < 4}
    values = set(numbers.values())
    counts_few = len(values) < 5 and values == set(range(len(values)))
    is_fer2013 = 0 in values and max(values) < 7 and not counts_few
    is_raf_db = 7 in values and min(values) > 0 and max(values) == 7
    if len(numbers) == len(class_of) and (is_fer2013 or is_raf_db):
        scheme = EMOTIONS if is_fer2013 else ("", *RAF_DB)
        class_of = {name: scheme[number] for name, number in numbers.items()}
    own = sorted(set(class_of.values()) - set(KNOWN_CLASSES))
    classes = [*(name for name in KNOWN_CLASSES if name in class_of.values()), *own]
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"found {len(classes):,} classes, such as {', '.join(classes[:3])}; expected at most {MAX_CLASSES}. "
            f"Are these the class names?"
        )
    return classes, class_of


def describe_renamed(class_of: Mapping[str, str]) -> list[str]:
    """Return a sentence that lists the names that are read as another name; an empty list if there are none."""
    renamed = [f"{name} as {known}" for name, known in class_of.items() if name != known]
    return [f"classes: {', '.join(renamed)}"] if renamed else []


def describe_without_face(names: Sequence[str]) -> list[str]:
    """Return a sentence that counts the images in which a detector found no face; an empty list if there are none."""
    number = counted(len(names), "image")
    return [f"no face was found in {number}, such as {names[0]}: the central square is used"] if names else []


def describe_left_out(names: Sequence[str]) -> list[str]:
    """Return a sentence that counts files by their ending; an empty list if there are none."""
    endings = Counter(PurePath(name).suffix or "without ending" for name in names)
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(6))
    return [f"left out: {counted(len(names), 'file')} other than images ({kinds}), such as {names[0]}"] if names else []
