"""Any image file becomes a face of one size, as a viewer shows it."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from emotion.data.crop import Box
from emotion.data.readers import images
from emotion.data.readers.images import ImageFormat, read_images
from emotion.errors import UserError


def read(*files: Path, size: int = 8, channels: int = 3) -> NDArray[np.uint8]:
    chunks = read_images(files, ImageFormat(size, channels), lambda i: files[i].name, "here")
    return np.concatenate([chunk.images.copy() for chunk in chunks])


def saved(name: str, image: Image.Image, **settings: object) -> Path:
    image.save(name, **settings)  # type: ignore[arg-type]
    return Path(name)


def test_the_longer_side_is_center_cropped() -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    for array in (wide, wide.transpose(1, 0, 2)):
        assert (read(saved("a.png", Image.fromarray(array))) == 200).all()


def test_an_image_of_the_right_size_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    np.testing.assert_array_equal(read(saved("a.png", Image.fromarray(pixels)), channels=1)[0], pixels)
    np.testing.assert_array_equal(read(saved("a.bmp", Image.fromarray(pixels)))[0], np.stack([pixels] * 3, -1))


MODES = {
    "L": 100, "RGB": (100, 100, 100), "P": 100, "CMYK": (0, 0, 0, 155), "RGBA": (100, 100, 100, 255), "LA": (100, 255),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [1, 3])
def test_all_modes_give_the_same_face(mode: str, channels: int) -> None:
    image = Image.new(mode, (12, 8), MODES[mode])
    if mode == "P":
        image.putpalette([value for value in range(256) for _ in range(3)])
    file = saved("a.jpg", image, quality=100) if mode == "CMYK" else saved("a.png", image)
    assert abs(read(file, channels=channels).astype(int) - 100).max() <= 1


def test_sixteen_bits_are_scaled_to_eight() -> None:
    wide = np.array([[0, 257, 25700, 65535]], np.uint16).repeat(4, 0)
    assert read(saved("a.png", Image.fromarray(wide)), size=4, channels=1)[0, 0].tolist() == [0, 1, 100, 255]


def test_transparent_pixels_are_put_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 128), (0, 4, 8, 8))
    face = read(saved("a.png", image), saved("b.webp", image, lossless=True))
    assert (face[:, :4] == 255).all()
    assert abs(face[:, 4:].astype(int) - 127).max() <= 1


def test_a_palette_color_may_be_transparent() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, 50, 50, 50])
    assert (read(saved("a.png", image, transparency=1)) == 255).all()


def test_the_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:, :8] = 255  # the left half, which becomes the upper one
    face = read(saved("a.jpg", Image.fromarray(pixels), exif=exif, quality=100), channels=1)[0]
    assert face[:3].min() > 250
    assert face[5:].max() < 5


def test_decoding_a_large_jpeg_at_reduced_size_gives_the_same_face() -> None:
    line = np.linspace(0, 255, 1600)
    pixels = np.stack([line[None].repeat(1200, 0), line[:1200, None].repeat(1600, 1), np.full((1200, 1600), 90)], -1)
    image = Image.fromarray(pixels.astype(np.uint8))
    small, whole = read(saved("a.jpg", image, quality=95), saved("a.png", image), size=64).astype(int)
    assert abs(small - whole).max() <= 4


def test_more_images_than_a_chunk_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "CHUNK_BYTES", 5 * 8 * 8)
    files = [saved(f"{i}.png", Image.new("L", (8, 8), i)) for i in range(23)]
    read_chunks = read_images(files, ImageFormat(8, 1), str, "here")
    chunks = [(list(chunk.rows), chunk.images[:, 0, 0].tolist()) for chunk in read_chunks]
    assert [len(places) for places, _ in chunks] == [5, 5, 5, 5, 3]
    assert all(places == values for places, values in chunks)


@pytest.mark.parametrize("count", [images.BLOCK, images.CHUNK, images.CHUNK + 1])
def test_any_number_of_images_keeps_its_order(count: int) -> None:
    for shade in range(256):
        saved(f"{shade}.png", Image.new("L", (2, 2), shade))
    files = [Path(f"{i % 256}.png") for i in range(count)]
    assert read(*files, size=2, channels=1)[:, 0, 0].tolist() == [i % 256 for i in range(count)]


def test_images_that_cannot_be_read_are_all_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "CHUNK_BYTES", 3 * 8 * 8 * 3)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    whole = saved("whole.png", Image.fromarray(noise))
    Path("cut.png").write_bytes(whole.read_bytes()[:800])
    Path("text.jpg").write_text("no image")
    other = saved("other.ico", Image.new("L", (8, 8)))
    files = [Path("cut.png"), whole, whole, whole, Path("text.jpg"), other]
    with pytest.raises(UserError, match=r"(?s)3 of 6 images in here .*PNG, JPEG.*cut.png: .*text.jpg: .*other.ico: "):
        read(*files)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"bomb.png: .*decompression bomb"):
        read(saved("bomb.png", Image.new("L", (30, 30))))


def brightest(image: NDArray[np.uint8]) -> list[Box]:
    """Find the square of white pixels, if there is one."""
    rows, columns = np.nonzero(image.min(-1) > 250)
    return [Box(columns.min(), rows.min(), np.ptp(columns) + 1, 1.0)] if len(rows) else []


@pytest.mark.parametrize("channels", [1, 3])
def test_a_detector_finds_the_face_of_each_image(channels: int) -> None:
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[10:30, 50:70] = 255
    files = [saved("a.png", Image.fromarray(pixels)), saved("b.png", Image.new("RGB", (40, 30), (90, 90, 90)))]
    (chunk,) = read_images(files, ImageFormat(8, channels, brightest), str, "here")
    assert (chunk.images[0] == 255).all()
    assert (chunk.images[1] == 90).all()
    assert chunk.without_face == [1]


def test_a_detector_sees_an_image_upright_and_not_larger_than_necessary() -> None:
    sizes: list[tuple[int, ...]] = []

    def whole(image: NDArray[np.uint8]) -> list[Box]:
        sizes.append(image.shape)
        return [Box(0, 0, image.shape[1], 1.0)]

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    files = [saved("a.jpg", Image.new("RGB", (60, 40)), exif=exif), saved("b.png", Image.new("L", (4096, 16)))]
    assert len(list(read_images(files, ImageFormat(8, 1, whole), str, "here"))) == 1
    assert sorted(sizes) == [(8, 2048, 3), (60, 40, 3)]


def test_a_damaged_image_is_reported_with_a_detector_too() -> None:
    Path("a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 1 image in here cannot be read"):
        list(read_images([Path("a.png")], ImageFormat(8, 1, brightest), str, "here"))
