"""A colour for each class, the same wherever faces are drawn."""

from collections.abc import Sequence

Colour = tuple[int, int, int]

OF_EMOTIONS: dict[str, Colour] = {
    "ang": (229, 72, 77),
    "disg": (86, 160, 60),
    "fear": (142, 78, 198),
    "happ": (250, 176, 5),
    "sad": (50, 120, 220),
    "surp": (18, 181, 190),
    "neut": (140, 145, 155),
    "cont": (173, 127, 88),
}
"""By how their names begin: angry and anger, happy and happiness are the same."""

OF_OTHERS: tuple[Colour, ...] = ((214, 64, 159), (0, 144, 120), (240, 110, 40), (90, 98, 220), (120, 140, 20))


def colours_of(classes: Sequence[str]) -> list[Colour]:
    """Red, green and blue of each class, 0 to 255."""
    others = 0
    found = []
    for name in classes:
        own = next((colour for start, colour in OF_EMOTIONS.items() if name.lower().startswith(start)), None)
        if own is None:
            own, others = OF_OTHERS[others % len(OF_OTHERS)], others + 1
        found.append(own)
    return found
