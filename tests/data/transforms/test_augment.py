"""Augmentation: random parameters per face, values in range, identity at zero strength."""

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as reference

from emotion.data.transforms.augment import (
    LUMINANCE_TABLE,
    Affine,
    Blur,
    ColorJitter,
    Compression,
    Crop,
    Erasing,
    Flip,
    Noise,
    ResizedCrop,
)
from emotion.data.transforms.preprocess import Preprocess, to_float


def smooth(batch: int, channels: int = 1, side: int = 32) -> Tensor:
    torch.manual_seed(1)
    return interpolate(torch.rand(batch, channels, 6, 6), (side, side), mode="bicubic").clamp(0, 1)


TRANSFORMS = {
    "flip": Flip(),
    "affine": Affine(15, 0.1, 0.1),
    "crop": ResizedCrop((0.5, 1.0)),
    "jitter": ColorJitter(0.2, 0.2, 0.1),
    "blur": Blur(p=0.5),
    "noise": Noise(p=0.5),
    "compression": Compression(p=0.5),
    "erasing": Erasing(p=0.5),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_shape_and_range_are_kept(transform: str, channels: int) -> None:
    faces = smooth(64, channels)
    changed = TRANSFORMS[transform](faces.clone())
    assert changed.shape == faces.shape
    assert changed.min() >= 0
    assert changed.max() <= 1 + 1e-6


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_each_face_has_its_own_parameters(transform: str) -> None:
    changed = TRANSFORMS[transform](smooth(1).expand(64, -1, -1, -1).clone())
    assert len(changed.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize(
    "transform",
    [Flip(p=0), Affine(), ColorJitter(), Blur(p=0), Noise(p=0), Compression(p=0), Erasing(p=0)],
    ids=lambda transform: type(transform).__name__,
)
def test_zero_strength_changes_nothing(transform: nn.Module) -> None:
    faces = smooth(8)
    torch.testing.assert_close(transform(faces.clone()), faces, atol=2e-6, rtol=0)


def test_flip_mirrors_about_half_of_the_faces() -> None:
    faces = smooth(1).expand(1000, -1, -1, -1)
    torch.manual_seed(0)
    for p in (0.5, 0.2):
        mirrored = (Flip(p)(faces) == faces.flip(-1)).all(-1).all(-1).all(-1)
        assert abs(mirrored.double().mean() - p) < 0.04


def largest_affine(degrees: float, monkeypatch: pytest.MonkeyPatch, **others: float) -> Affine:
    """Return an Affine whose random parameters are their upper bounds."""
    monkeypatch.setattr(
        "emotion.data.transforms.augment._uniform", lambda faces, low, high: torch.full((len(faces), 1, 1, 1), high)
    )
    return Affine(degrees, **others)


def test_rotation_equals_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = smooth(2)
    result = largest_affine(15, monkeypatch)(faces)
    expected = reference.rotate(faces, -15, interpolation=reference.InterpolationMode.BILINEAR)
    assert (result - expected)[..., 6:-6, 6:-6].abs().max() < 0.01


def test_shift_is_relative_to_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = smooth(2)
    result = largest_affine(0, monkeypatch, translate=0.125)(faces)  # 4 of 32 pixels, to the left and up
    torch.testing.assert_close(result[..., :-4, :-4], faces[..., 4:, 4:], atol=1e-5, rtol=0)
    assert result[..., -4:, :].abs().max() == 0


def test_zoom_keeps_the_center(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = smooth(2)
    result = largest_affine(0, monkeypatch, zoom=1.0)(faces)
    expected = interpolate(faces[..., 8:24, 8:24], (32, 32), mode="bilinear")
    assert (result - expected)[..., 2:-2, 2:-2].abs().max() < 1e-5


def ramps(count: int) -> Tensor:
    """Faces (count, 2, 64, 64) whose channels are the positions across and down, from 0 to 1."""
    position = (torch.arange(64.0) + 0.5) / 64
    return torch.stack([position.expand(64, 64), position[:, None].expand(64, 64)])[None].repeat(count, 1, 1, 1)


def assert_uniform(values: Tensor, low: float, high: float) -> None:
    """A thousand or more values fill the range evenly."""
    share = (values - low) / (high - low)
    assert (share.min() > -0.01, share.max() < 1.01) == (True, True)
    assert (share.min() < 0.02, share.max() > 0.98, abs(share.mean() - 0.5) < 0.04) == (True, True, True)
    assert abs(share.std() - 12**-0.5) < 0.03


def sampled_affine(transform: Affine) -> tuple[Tensor, ...]:
    """Return angle in degrees, zoom, and shift right and down in shares of the side, of 2,000 faces."""
    torch.manual_seed(0)
    center = transform(ramps(2000))[:, :, 24:40, 24:40]
    across, down = (center.diff(dim=axis).mean((2, 3)) * 64 for axis in (3, 2))  # (2000, 2) each
    angle = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0]))
    torch.testing.assert_close(torch.stack([-across[:, 1], across[:, 0]], 1), down, atol=1e-3, rtol=0)
    return angle, 1 / across.norm(dim=1), *(0.5 - center.mean((2, 3))).unbind(1)


def test_affine_turns_and_shifts_both_ways_and_zooms_in_and_out() -> None:
    angle, zoom, right, down = sampled_affine(Affine(15, 0.1, 0.2))
    assert_uniform(angle, -15, 15)
    assert_uniform(zoom, 0.8, 1.2)
    assert_uniform(right, -0.1, 0.1)
    assert_uniform(down, -0.1, 0.1)
    parameters = torch.corrcoef(torch.stack([angle, zoom, right, down]))
    assert (parameters - torch.eye(4)).abs().max() < 0.1  # each is sampled on its own


def test_jitter_brightens_and_darkens_by_its_range() -> None:
    torch.manual_seed(0)
    assert_uniform(ColorJitter(brightness=0.4)(torch.full((2000, 1, 2, 2), 0.5))[:, 0, 0, 0] / 0.5, 0.6, 1.4)


def test_jitter_raises_and_lowers_contrast_about_the_mean() -> None:
    torch.manual_seed(0)
    changed = ColorJitter(contrast=0.4)(torch.tensor([0.3, 0.5, 0.7]).expand(2000, 1, 1, 3))[:, 0, 0]
    torch.testing.assert_close(changed.mean(1), torch.full((2000,), 0.5))
    assert_uniform((changed[:, 2] - changed[:, 0]) / 0.4, 0.6, 1.4)


def test_jitter_raises_and_lowers_saturation_about_the_gray_of_each_pixel() -> None:
    torch.manual_seed(0)
    faces = torch.tensor([0.3, 0.4, 0.5]).view(1, 3, 1, 1).expand(2000, 3, 1, 1).contiguous()
    changed = ColorJitter(saturation=0.4)(faces)[:, :, 0, 0]
    torch.testing.assert_close(changed.mean(1), torch.full((2000,), 0.4))
    assert_uniform((changed[:, 2] - changed[:, 0]) / 0.2, 0.6, 1.4)
    gray = torch.full((9, 3, 2, 2), 0.5)
    torch.testing.assert_close(ColorJitter(saturation=0.4)(gray), gray)


def test_jittered_values_stay_between_0_and_1() -> None:
    torch.manual_seed(0)
    for channels, jitter in (
        (1, ColorJitter(brightness=0.9)),
        (1, ColorJitter(contrast=0.9)),
        (3, ColorJitter(0, 0, 0.9)),
    ):
        changed = jitter(torch.rand(64, channels, 8, 8).round())  # black and white
        assert (changed.min(), changed.max()) == (0, 1)


def test_blur_has_deviations_of_its_range() -> None:
    torch.manual_seed(0)
    point = torch.zeros(2000, 1, 9, 9)
    point[:, :, 4, 4] = 1
    blurred = Blur(p=1.0, sigma=(0.5, 1.5))(point)[:, 0]
    torch.testing.assert_close(blurred[:, 4, 5], blurred[:, 3, 4])
    torch.testing.assert_close(blurred.sum((1, 2)), torch.ones(2000))
    assert_uniform((-0.5 / (blurred[:, 4, 5] / blurred[:, 4, 4]).log()) ** 0.5, 0.5, 1.5)
    share = (Blur(p=0.3)(point)[:, 0, 4, 4] < 1).double().mean()
    assert abs(share - 0.3) < 0.03


def test_noise_has_deviations_of_its_range() -> None:
    torch.manual_seed(0)
    gray = torch.full((2000, 1, 24, 24), 0.5)
    noise = Noise(p=1.0, deviation=(0.02, 0.06))(gray) - gray
    assert_uniform(noise.std((1, 2, 3)).clamp(0.02, 0.06), 0.02, 0.06)
    assert abs(noise.mean()) < 0.001
    share = (Noise(p=0.3)(gray) != gray).any(-1).any(-1).double().mean()
    assert abs(share - 0.3) < 0.04


@pytest.mark.parametrize("quality", [15, 50, 80])
def test_compression_equals_pillows(quality: int) -> None:
    pixels = (smooth(4, side=40) * 255).round()
    expected = []
    for face in pixels[:, 0].byte().numpy():
        file = BytesIO()
        Image.fromarray(face).save(file, "JPEG", quality=quality)
        expected.append(torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32)))
    decoded = 255 * Compression(p=1.0, quality=(quality, quality))(pixels / 255)[:, 0]
    difference = (decoded - torch.stack(expected)).abs()  # Pillow decodes to whole numbers and may break ties otherwise
    assert difference.mean() < 0.5
    assert (decoded - pixels[:, 0]).abs().mean() > 1


def test_the_quantization_table_is_pillows_at_quality_50() -> None:
    file = BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG", quality=50)
    assert list(LUMINANCE_TABLE) == Image.open(file).quantization[0]  # type: ignore[attr-defined]


def test_compression_fills_incomplete_blocks_and_leaves_other_faces() -> None:
    torch.manual_seed(0)
    faces = smooth(400, side=44)
    compressed = Compression(p=0.3, quality=(10, 40))(faces)
    unchanged = (compressed == faces).flatten(1).all(1)
    assert abs(unchanged.double().mean() - 0.7) < 0.08
    assert (compressed - faces)[~unchanged].flatten(1).abs().amax(1).min() > 0.004


def test_erased_rectangles_have_the_given_ratio_and_are_anywhere() -> None:
    """Height over width from 2 to 3, as even as its logarithm."""
    torch.manual_seed(0)
    erased = Erasing(p=1.0, scale=(0.06, 0.06), ratio=(2, 3), value=1.0)(torch.zeros(2000, 1, 128, 128))[:, 0]
    rows, columns = erased.amax(2), erased.amax(1)
    height, width = rows.sum(1), columns.sum(1)
    assert (erased.sum((1, 2)) == height * width).all()
    assert abs((height * width / 128**2).mean() - 0.06) < 0.001
    assert_uniform((height / width).log().clamp(math.log(2), math.log(3)), math.log(2), math.log(3))
    for covered, extent in ((rows, height), (columns, width)):
        assert_uniform(covered.argmax(1) / (128 - extent), 0, 1)


def test_erased_areas_are_of_their_range() -> None:
    torch.manual_seed(0)
    share = Erasing(p=1.0, scale=(0.1, 0.3), value=1.0)(torch.zeros(2000, 1, 64, 64)).mean((1, 2, 3))
    assert_uniform(share.clamp(0.1, 0.3), 0.1, 0.3)
    assert Erasing(p=1.0)(torch.zeros(1, 1, 16, 16)).unique().tolist() == [0, 0.5]  # gray by default


def test_blur_equals_torchvisions() -> None:
    faces = smooth(4)
    result = Blur(p=1.0, sigma=(0.8, 0.8))(faces)
    torch.testing.assert_close(result, reference.gaussian_blur(faces, [3, 3], [0.8, 0.8]), atol=1e-6, rtol=0)


def test_jitter_equals_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = smooth(4, 3)
    monkeypatch.setattr(
        ColorJitter, "_factor", lambda self, faces, spread: torch.full((len(faces), 1, 1, 1), 1 + spread)
    )
    expected = reference.adjust_contrast(reference.adjust_brightness(faces, 1.2), 1.3)
    result = ColorJitter(brightness=0.2, contrast=0.3)(faces)
    assert (result - expected).abs().max() < 0.02  # torchvision uses the mean of the luma, we that of the channels


def test_erasing_covers_the_given_area() -> None:
    faces = torch.zeros(400, 1, 40, 40)
    covered = Erasing(p=1.0, scale=(0.05, 0.05), value=1.0)(faces).mean((1, 2, 3))
    assert abs(covered.mean() - 0.05) < 0.005
    assert covered.min() > 0.03


def test_erasing_covers_some_faces_only() -> None:
    torch.manual_seed(0)
    erased = Erasing(p=0.3, value=1.0)(torch.zeros(2000, 1, 16, 16)).amax((1, 2, 3)) > 0
    assert abs(erased.double().mean() - 0.3) < 0.03


def test_a_resized_crop_of_the_whole_face_changes_nothing() -> None:
    faces = smooth(8)
    torch.testing.assert_close(ResizedCrop((1.0, 1.0), (1.0, 1.0))(faces), faces, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scale", "ratio"), [(0.75, 1.0), (0.5, 4 / 3)])
def test_resized_crops_have_the_given_area_and_ratio(scale: float, ratio: float) -> None:
    """On a ramp, the step between pixels shows the enlargement."""
    ramp = (torch.arange(64.0) + 0.5) / 64
    for axis, shape in ((3, (1, 1, 1, 64)), (2, (1, 1, 64, 1))):
        faces = ramp.view(shape).expand(16, 1, 64, 64)
        inner = ResizedCrop((scale, scale), (ratio, ratio))(faces)[:, :, 8:-8, 8:-8]
        step = inner.diff(dim=axis).mean((1, 2, 3)) * 64
        side = (scale * ratio) ** 0.5 if axis == 3 else (scale / ratio) ** 0.5
        torch.testing.assert_close(step, torch.full((16,), side), atol=1e-3, rtol=0)


def test_resized_crops_are_anywhere_inside_the_face() -> None:
    torch.manual_seed(0)
    for centers in ResizedCrop((0.25, 0.25), (1.0, 1.0))(ramps(2000)).mean((2, 3)).unbind(1):
        assert_uniform(centers, 0.25, 0.75)


def test_resized_crops_have_areas_and_ratios_of_their_ranges() -> None:
    torch.manual_seed(0)
    inner = ResizedCrop((0.2, 0.4), (1.0, 2.0))(ramps(2000))[:, :, 8:-8, 8:-8]
    width, height = (inner[:, channel].diff(dim=dim).mean((1, 2)) * 64 for channel, dim in ((0, 2), (1, 1)))
    assert_uniform(width * height, 0.2, 0.4)
    assert_uniform((width / height).log(), 0, math.log(2))


def test_a_crop_after_a_shift_has_no_black_border() -> None:
    faces = torch.ones(64, 1, 48, 48)
    assert Crop(40)(Affine(translate=0.08)(faces)).min() == pytest.approx(1)
    assert Affine(translate=0.08)(faces).min() == 0


def test_an_unshifted_crop_equals_the_center_crop_of_evaluation() -> None:
    pixels = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    preprocess = Preprocess(size=40, channels=1, mean=[0.5], std=[0.5], zoom=1.2)
    assert preprocess.normalize(Crop(40)(preprocess.shrink(to_float(pixels)))).equal(preprocess(pixels))


def test_a_crop_larger_than_the_face_changes_nothing() -> None:
    faces = smooth(2)
    assert Crop(50)(faces).equal(faces)
    assert Crop(31)(faces).equal(faces[..., :31, :31])  # of an odd rest, the larger part is below
    assert Crop(29)(faces).equal(faces[..., 1:30, 1:30])
