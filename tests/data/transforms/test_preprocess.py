import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from emotion.data.transforms.preprocess import Preprocess, to_float
from emotion.errors import UserError

GRAY = torch.randint(0, 256, (5, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
COLOR = torch.randint(0, 256, (5, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_grey48_maps_bytes_to_minus_one_to_one() -> None:
    result = Preprocess(48, 1, [0.5], [0.5])(GRAY)
    torch.testing.assert_close(result[:, 0], GRAY / 127.5 - 1)


@pytest.mark.parametrize(
    ("pixels", "size", "channels"),
    [(GRAY, 48, 3), (COLOR, 64, 3), (GRAY, 32, 1), (GRAY, 20, 3), (COLOR, 20, 3), (COLOR, 32, 1), (GRAY, 224, 3)],
)
def test_faces_are_resized_as_by_torchvision(pixels: torch.Tensor, size: int, channels: int) -> None:
    """Antialiased where they shrink, bilinear where they grow."""
    result = Preprocess(size, channels, [0.4], [0.2])(pixels)
    planes = to_float(pixels)
    if channels == 1 and planes.shape[1] == 3:
        planes = (planes * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    expected = reference.resize(planes, [size, size], antialias=True).expand(-1, channels, -1, -1)
    torch.testing.assert_close(result, (expected - 0.4) / 0.2, atol=1e-5, rtol=1e-5)


def test_gray_faces_have_three_equal_channels_before_normalization() -> None:
    result = Preprocess(64, 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(GRAY)
    back = result * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) + torch.tensor([0.485, 0.456, 0.406]).view(
        3, 1, 1
    )
    torch.testing.assert_close(back[:, 0], back[:, 2])
    torch.testing.assert_close(back[:, 0], back[:, 1])


@pytest.mark.parametrize("channels", [1, 3])
def test_normalization_can_be_undone(channels: int) -> None:
    preprocess = Preprocess(48, channels, [0.485, 0.456, 0.406][:channels], [0.229, 0.224, 0.225][:channels])
    torch.testing.assert_close(
        preprocess.denormalize(preprocess(GRAY)), (GRAY[:, None] / 255).expand(-1, channels, -1, -1)
    )


def test_color_becomes_gray_as_in_pillow() -> None:
    result = Preprocess(40, 1, [0.0], [1.0])(COLOR)[:, 0] * 255
    expected = np.stack([np.asarray(Image.fromarray(image.numpy()).convert("L")) for image in COLOR])
    assert (result - torch.from_numpy(expected)).abs().max() <= 1


def test_faces_become_planes_of_channels_from_0_to_1() -> None:
    assert to_float(GRAY).equal(GRAY[:, None] / 255)
    assert to_float(COLOR).equal(torch.stack([COLOR[..., channel] for channel in range(3)], 1) / 255)


def test_maps_return_to_the_part_of_the_face_that_the_network_sees() -> None:
    plain = Preprocess(24, 1, [0.0], [1.0])
    maps = torch.rand(2, 24, 24, generator=torch.Generator().manual_seed(0))
    assert plain.maps_to_faces(maps, 24, 24).equal(maps)
    enlarged = torch.nn.functional.interpolate(maps[:, None], (48, 40), mode="bilinear")[:, 0]
    torch.testing.assert_close(plain.maps_to_faces(maps, 48, 40), enlarged)
    zoomed = Preprocess(24, 1, [0.0], [1.0], zoom=31 / 24).maps_to_faces(maps, 31, 31)
    assert zoomed[:, 4:28, 4:28].equal(maps)  # 3.5 pixels at each side, rounded as in the crop
    assert zoomed.sum().item() == pytest.approx(maps.sum().item())


def test_zoom_is_resize_and_center_crop() -> None:
    """To 255, then to the center 224, as in ImageNet evaluation with torchvision."""
    result = Preprocess(224, 1, [0.0], [1.0], zoom=1.14)(GRAY)
    large = reference.resize(GRAY[:, None] / 255, [255, 255], antialias=False)
    torch.testing.assert_close(result, reference.center_crop(large, [224, 224]), atol=1e-5, rtol=0)


def test_shrinking_keeps_the_pixels_that_zoom_uses() -> None:
    large = torch.randint(0, 256, (2, 100, 100), dtype=torch.uint8)
    preprocess = Preprocess(64, 1, [0.0], [1.0], zoom=1.14)
    assert preprocess.shrink(to_float(large)).shape == (2, 1, 73, 73)
    small = reference.resize(to_float(large), [73, 73], antialias=True)
    torch.testing.assert_close(preprocess(large), reference.center_crop(small, [64, 64]))
    assert preprocess.shrink(to_float(large[:, :73, :73])).equal(to_float(large[:, :73, :73]))


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(UserError, match="expected 1 or 3 channels"):
        Preprocess(48, 2, [0.5], [0.5])
    with pytest.raises(UserError, match="expected 1 or 3 channels"):
        Preprocess(48, 3, [0.5, 0.5], [0.5])
    with pytest.raises(UserError, match="expected 1 or 3 channels"):
        Preprocess(48, 3, [0.5], [0.5, 0.5])
    with pytest.raises(UserError, match=r"zoom 0\.9; expected 1"):
        Preprocess(48, 1, [0.5], [0.5], zoom=0.9)
