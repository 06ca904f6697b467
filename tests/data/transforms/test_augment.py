"""Augmentation: random parameters per face, values in range, identity at zero strength."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as reference

from emotion.data.transforms.augment import Affine, Blur, ColorJitter, Crop, Erasing, Flip, ResizedCrop
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
    [Flip(p=0), Affine(), ColorJitter(), Blur(p=0), Erasing(p=0)],
    ids=lambda transform: type(transform).__name__,
)
def test_zero_strength_changes_nothing(transform: nn.Module) -> None:
    faces = smooth(8)
    torch.testing.assert_close(transform(faces.clone()), faces, atol=2e-6, rtol=0)


def test_flip_mirrors_about_half_of_the_faces() -> None:
    faces = smooth(1).expand(1000, -1, -1, -1)
    mirrored = (Flip(0.5)(faces) == faces.flip(-1)).all(-1).all(-1).all(-1)
    assert 430 < mirrored.sum() < 570


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


def test_zoom_keeps_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = smooth(2)
    result = largest_affine(0, monkeypatch, zoom=1.0)(faces)
    expected = interpolate(faces[..., 8:24, 8:24], (32, 32), mode="bilinear")
    assert (result - expected)[..., 2:-2, 2:-2].abs().max() < 1e-5


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
    erased = Erasing(p=0.1, value=1.0)(torch.zeros(2000, 1, 16, 16)).amax((1, 2, 3)) > 0
    assert 140 < erased.sum() < 260


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
    ramp = ((torch.arange(64.0) + 0.5) / 64).view(1, 1, 1, 64).expand(512, 1, 64, 64)
    torch.manual_seed(0)
    centres = ResizedCrop((0.25, 0.25), (1.0, 1.0))(ramp).mean((1, 2, 3))
    assert (centres.min() > 0.24, centres.max() < 0.76) == (True, True)
    assert (centres.min() < 0.27, centres.max() > 0.73) == (True, True)


def test_a_crop_after_a_shift_has_no_black_border() -> None:
    faces = torch.ones(64, 1, 48, 48)
    assert Crop(40)(Affine(translate=0.08)(faces)).min() == pytest.approx(1)
    assert Affine(translate=0.08)(faces).min() == 0


def test_an_unshifted_crop_equals_the_centre_crop_of_evaluation() -> None:
    pixels = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    preprocess = Preprocess(size=40, channels=1, mean=[0.5], std=[0.5], zoom=1.2)
    assert preprocess.normalize(Crop(40)(preprocess.shrink(to_float(pixels)))).equal(preprocess(pixels))


def test_a_crop_larger_than_the_face_changes_nothing() -> None:
    faces = smooth(2)
    assert Crop(50)(faces).equal(faces)
