from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.data.readers.images import flat
from emotion.errors import UserError
from emotion.inference.images import LONGEST, as_picture, read_picture
from tests.pictures import packed

RAMP = np.linspace(0, 255, 12 * 8).astype(np.uint8).reshape(8, 12)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(RAMP), "PNG"),
        (Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
        (Image.fromarray(RAMP).convert("RGB"), "WEBP"),
        (Image.fromarray(RAMP).convert("P"), "PNG"),
        (Image.fromarray(RAMP).convert("RGBA"), "PNG"),
        (Image.fromarray(RAMP).convert("LA"), "PNG"),
        (Image.fromarray(RAMP).convert("RGB"), "BMP"),
    ],
    ids=["grey", "16 bits", "webp", "palette", "rgba", "grey with alpha", "bmp"],
)
def test_every_mode_gives_the_same_three_channels(image: Image.Image, kind: str) -> None:
    found = read_picture(packed(image, kind, **({"lossless": True} if kind == "WEBP" else {}))).pixels
    assert found.shape == (8, 12, 3)
    assert np.abs(found.astype(int) - RAMP[..., None]).max() <= 1


def test_cmyk_is_read() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert read_picture(packed(red, "JPEG")).pixels.mean((0, 1)).tolist() == pytest.approx([254, 0, 0], abs=3)


def test_what_is_transparent_is_white() -> None:
    assert read_picture(packed(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).pixels.min() == 255


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_turned_photograph_stands_upright(kind: str) -> None:
    image = Image.fromarray(np.repeat(RAMP, 8, 0).repeat(8, 1))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    found = read_picture(packed(image, kind, exif=exif)).pixels
    assert found.shape == (96, 64, 3)
    assert found[:, -1, 0].mean() < found[:, 0, 0].mean()  # its first, dark row is now on the right


@pytest.mark.parametrize(("kind", "turned"), [("JPEG", 1), ("JPEG", 6), ("PNG", 1)])  # by libjpeg, and by strips
def test_a_huge_picture_is_shrunk_and_says_by_how_much(kind: str, turned: int) -> None:
    image = Image.new("L", (9000, 3000))
    exif = image.getexif()
    exif[0x0112] = turned
    found = read_picture(packed(image, kind, exif=exif))
    assert found.pixels.shape == ((1365, LONGEST, 3) if turned == 1 else (LONGEST, 1365, 3))
    assert found.factor == 9000 / LONGEST


def test_a_picture_that_is_not_shrunk_says_so() -> None:
    assert [read_picture(packed(Image.new("L", size))).factor for size in ((1, 1), (4000, 3000))] == [1, 1]
    assert as_picture(RAMP).factor == as_picture(Image.fromarray(RAMP)).factor == 1
    assert as_picture(Image.new("L", (2 * LONGEST, 10))).factor == 2


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK"])
def test_strips_of_a_picture_are_the_picture(mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 900, 4), np.uint8))
    image = noise if mode == "RGBA" else noise.convert("RGB").convert(mode)
    assert (as_picture(image).pixels == np.asarray(flat(image, "RGB"))).all()


def test_too_many_pixels_are_refused_before_they_are_unpacked() -> None:
    header = packed(Image.new("1", (30_000, 30_000)))
    with pytest.raises(UserError, match=r"too large .*expected at most 179 million pixels"):
        read_picture(header, "x.png")
    with pytest.raises(UserError, match=r"x.png is too large \(200 x 100 pixels\)"):
        read_picture(packed(Image.new("L", (200, 100))), "x.png", most=10_000)


@pytest.mark.parametrize("content", [b"", b"no picture", b"%PDF-1.7", b"GIF89a"], ids=["empty", "text", "pdf", "gif"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"x.jpg cannot be read .*expected a picture: PNG, JPEG, WEBP, BMP"):
        read_picture(tmp_path / "x.jpg")


def test_half_a_picture_is_refused() -> None:
    whole = packed(Image.effect_noise((200, 200), 50), "JPEG")
    with pytest.raises(UserError, match="cannot be read"):
        read_picture(whole[: len(whole) // 2])


def test_a_program_s_pictures_are_taken_in_any_form(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP)
    image.save(tmp_path / "x.png")
    forms = (tmp_path / "x.png", str(tmp_path / "x.png"), packed(image), image, RAMP, RAMP[..., None])
    assert all((as_picture(form).pixels == RAMP[..., None]).all() for form in forms)


@pytest.mark.parametrize("value", [3, RAMP.astype(float), np.zeros((0, 4), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)])
def test_what_a_program_gives_by_mistake_is_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"A picture of type \w+.*expected a path"):
        as_picture(value)
    with pytest.raises(UserError, match=r"nothing\.png is not there"):
        as_picture("nothing.png")
