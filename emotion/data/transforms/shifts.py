"""The shifts of `tta=shifted`, shared by PyTorch and ONNX Runtime: the face, and the face moved in four directions."""

SHIFT = 1 / 16  # of the side: 3 of 48 pixels
DIRECTIONS = ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Steps of the window down and right."""


def windows(side: int) -> tuple[int, list[tuple[int, int]]]:
    """Return the step in pixels, and the top left corner of each window in faces padded by one step."""
    step = round(side * SHIFT)
    return step, [(step * (1 + down), step * (1 + right)) for down, right in DIRECTIONS]
