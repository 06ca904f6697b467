import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.data.readers.images import convert_mode
from emotion.errors import UserError
from emotion.inference.images import MAX_SIDE, FirstFrameOnly, batches, load_image, parse_address, read_image
from tests.images import encode_animation, encode_image

RAMP = np.linspace(0, 255, 12 * 8).astype(np.uint8).reshape(8, 12)


@pytest.mark.parametrize(
    ("image", "image_format"),
    [
        (Image.fromarray(RAMP), "PNG"),
        (Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
        (Image.fromarray(RAMP.astype(np.int32) * 257), "TIFF"),
        (Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        (Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"),
        (Image.fromarray(RAMP).convert("RGB"), "WEBP"),
        (Image.fromarray(RAMP).convert("P"), "PNG"),
        (Image.fromarray(RAMP).convert("RGBA"), "PNG"),
        (Image.fromarray(RAMP).convert("LA"), "PNG"),
        (Image.fromarray(RAMP).convert("RGB"), "BMP"),
    ],
    ids=["gray", "16 bits", "32 bits", "floats", "floats up to 1", "webp", "palette", "rgba", "gray with alpha", "bmp"],
)
def test_every_mode_becomes_rgb(image: Image.Image, image_format: str) -> None:
    settings = {"lossless": True} if image_format == "WEBP" else {}
    pixels = read_image(encode_image(image, image_format, **settings)).pixels
    assert pixels.shape == (8, 12, 3)
    assert np.abs(pixels.astype(int) - RAMP[..., None]).max() <= 1


@pytest.mark.parametrize("value", [-1, 65536, 255.5, float("nan")])
def test_pixels_out_of_range_are_rejected(value: float) -> None:
    image = Image.new("I" if isinstance(value, int) else "F", (4, 4))
    image.putpixel((2, 2), value)
    for given in (image, encode_image(image, "TIFF")):
        with pytest.raises(UserError, match=r"cannot be read \(its pixels are not all from 0 to"):
            load_image(given)


def test_a_float_image_is_scaled_as_a_whole() -> None:
    pixels = load_image(Image.fromarray(np.outer(np.linspace(0, 255, 900), np.ones(700)).astype(np.float32))).pixels
    assert pixels[:4].max() <= 1


def test_cmyk_becomes_rgb_and_transparency_white() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert read_image(encode_image(red, "JPEG")).pixels.mean((0, 1)).tolist() == pytest.approx([254, 0, 0], abs=3)
    assert read_image(encode_image(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).pixels.min() == 255


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(image_format: str) -> None:
    image = Image.fromarray(np.repeat(RAMP, 8, 0).repeat(8, 1))
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    pixels = read_image(encode_image(image, image_format, exif=exif)).pixels
    assert pixels.shape == (96, 64, 3)
    assert pixels[:, -1, 0].mean() < pixels[:, 0, 0].mean()  # the dark first row is now on the right


@pytest.mark.parametrize(("image_format", "orientation"), [("JPEG", 1), ("JPEG", 6), ("PNG", 1)])
def test_a_large_image_is_shrunk_by_its_scale(image_format: str, orientation: int) -> None:
    image = Image.new("L", (9000, 3000))
    exif = image.getexif()
    exif[0x0112] = orientation
    loaded = read_image(encode_image(image, image_format, exif=exif))
    assert loaded.pixels.shape == ((1365, MAX_SIDE, 3) if orientation == 1 else (MAX_SIDE, 1365, 3))
    assert loaded.scale == 9000 / MAX_SIDE


def test_other_images_have_scale_1() -> None:
    assert [read_image(encode_image(Image.new("L", size))).scale for size in ((1, 1), (4000, 3000))] == [1, 1]
    assert load_image(RAMP).scale == load_image(Image.fromarray(RAMP)).scale == 1
    assert load_image(Image.new("L", (2 * MAX_SIDE, 10))).scale == 2


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK"])
def test_conversion_by_strips_changes_nothing(mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 900, 4), np.uint8))
    image = noise if mode == "RGBA" else noise.convert("RGB").convert(mode)
    assert (load_image(image).pixels == np.asarray(convert_mode(image, "RGB"))).all()


def test_images_that_cost_too_much_are_rejected() -> None:
    with pytest.raises(UserError, match=r"too large .*expected at most 179 million pixels"):
        read_image(encode_image(Image.new("1", (20_000, 18_000))), "x.png")
    with pytest.raises(UserError, match=r"x.png is too large \(200 x 100 pixels\)"):
        read_image(encode_image(Image.new("L", (200, 100))), "x.png", max_pixels=10_000)
    jpeg = encode_image(Image.fromarray(RAMP), "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert read_image(jpeg[:-2] + 80 * scan + jpeg[-2:]).pixels.shape == (8, 12, 3)
    with pytest.raises(UserError, match=r"^x.jpg is a JPEG of more than 100 scans"):
        read_image(jpeg[:-2] + 100 * scan + jpeg[-2:], "x.jpg")


@pytest.mark.parametrize("content", [b"", b"no image", b"%PDF-1.7", b"GIF89a"], ids=["empty", "text", "pdf", "gif"])
def test_other_files_are_rejected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"x.jpg cannot be read .*expected a complete image: PNG, JPEG, WEBP, BMP"):
        read_image(tmp_path / "x.jpg")


def test_a_truncated_image_is_rejected() -> None:
    content = encode_image(Image.effect_noise((200, 200), 50), "JPEG")
    with pytest.raises(UserError, match="cannot be read"):
        read_image(content[: len(content) // 2])


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_image_that_is_read_in_part_is_reported(image_format: str) -> None:
    frames = [np.full((8, 12, 3), level, np.uint8) for level in (10, 90, 170)]
    with pytest.warns(FirstFrameOnly, match=r"^a\.b has several frames or pages; only the first one is used\."):
        loaded = read_image(encode_animation(frames, image_format), "a.b")
    assert np.abs(loaded.pixels - 10.0).max() < 3
    read_image(encode_animation(frames[:1], image_format))


def test_the_first_picture_of_a_phones_photo_is_the_photo() -> None:
    frames = [np.full((8, 12, 3), level, np.uint8) for level in (10, 90)]
    assert read_image(encode_animation(frames, "MPO")).pixels.mean() == pytest.approx(10, abs=3)


def test_images_are_accepted_in_any_form(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP)
    image.save(tmp_path / "x.png")
    forms = (tmp_path / "x.png", str(tmp_path / "x.png"), encode_image(image), image, RAMP, RAMP[..., None])
    assert all((load_image(form).pixels == RAMP[..., None]).all() for form in forms)


@pytest.mark.parametrize("value", [3, RAMP.astype(float), np.zeros((0, 4), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)])
def test_other_values_are_rejected(value: object) -> None:
    with pytest.raises(UserError, match=r"Found an image of type \w+.*expected a path"):
        load_image(value)
    with pytest.raises(UserError, match=r"nothing\.png does not exist"):
        load_image("nothing.png")
    Path("photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(UserError, match=r"photo\.HEIC cannot be read \(unknown format\).*to JPEG or PNG\.$"):
        load_image("photo.HEIC")


@pytest.mark.parametrize("suffix", [".tif", ".pgm", ".jfif"])
def test_further_formats_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("L", (9, 7), 100).save(path)
    assert abs(load_image(path).pixels.astype(int) - 100).max() <= 1
    assert load_image(path).pixels.shape == (7, 9, 3)


def test_a_tile_larger_than_its_image_is_refused_before_it_is_decoded() -> None:
    tags = {256: 1, 257: 1, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: 4}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<I", 12) + bytes(4) + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(UserError, match=r"too large \(1 x 1 pixels, 3600 MB decoded\)"):
        load_image(content)


def test_batches_are_limited_by_number_and_size() -> None:
    def sizes(count: int, **limits: int) -> list[int]:
        return [len(batch) for batch in batches(iter(range(count)), lambda item: 100, **limits)]

    assert sizes(10, batch_size=4) == [4, 4, 2]
    assert sizes(5, batch_size=10, max_bytes=200) == [2, 2, 1]
    assert sizes(3, batch_size=10, max_bytes=1) == [1, 1, 1]
    assert sizes(0, batch_size=10) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("HTTP://host/a b/\u00fc.png?x=1 2&y=%20", "http://host/a%20b/%C3%BC.png?x=1%202&y=%20"),
        (
            "http://m\u00fcller.example/x.png",
            "http://m\u00fcller.example/x.png",
        ),  # its name server has its own encoding
        ("rtsp://user:a b@host:554/live", "rtsp://user:a b@host:554/live"),
    ],
)
def test_path_and_query_of_an_address_are_percent_encoded(address: str, expected: str) -> None:
    assert parse_address(address).geturl() == expected
