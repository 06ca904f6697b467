import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from emotion.data.transforms.preprocess import Preprocess
from emotion.data.transforms.tta import TTA, flip, mean_probabilities, ten_crop, tta_logits
from emotion.errors import UserError

GREY = torch.randint(0, 256, (5, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
COLOUR = torch.randint(0, 256, (5, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_grey48_maps_bytes_to_minus_one_to_one() -> None:
    found = Preprocess(48, 1, [0.5], [0.5])(GREY)
    torch.testing.assert_close(found[:, 0], GREY / 127.5 - 1)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize(("size", "channels"), [(48, 1), (48, 3), (64, 3), (32, 1), (224, 3)])
def test_any_pixels_reach_any_input(pixels: torch.Tensor, size: int, channels: int) -> None:
    found = Preprocess(size, channels, [0.5] * channels, [0.25] * channels)(pixels)
    assert found.shape == (5, channels, size, size)


def test_grey_faces_have_three_equal_channels_before_their_own_means() -> None:
    found = Preprocess(64, 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(GREY)
    back = found * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    torch.testing.assert_close(back[:, 0], back[:, 2])


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_faces_can_be_taken_back(channels: int) -> None:
    takes = Preprocess(48, channels, [0.485, 0.456, 0.406][:channels], [0.229, 0.224, 0.225][:channels])
    torch.testing.assert_close(takes.undo(takes(GREY)), (GREY[:, None] / 255).expand(-1, channels, -1, -1))


def test_colour_becomes_grey_as_pillow_does() -> None:
    found = Preprocess(40, 1, [0.0], [1.0])(COLOUR)[:, 0] * 255
    theirs = np.stack([np.asarray(Image.fromarray(image.numpy()).convert("L")) for image in COLOUR])
    assert (found - torch.from_numpy(theirs)).abs().max() <= 1


def test_enlarging_is_bilinear() -> None:
    found = Preprocess(64, 1, [0.0], [1.0])(GREY)
    theirs = torch.nn.functional.interpolate(GREY[:, None] / 255, (64, 64), mode="bilinear")
    torch.testing.assert_close(found, theirs)


def test_two_channels_are_refused() -> None:
    with pytest.raises(UserError, match="expected 1 or 3 channels"):
        Preprocess(48, 2, [0.5], [0.5])


def test_flip_views_are_the_face_and_its_mirror_image() -> None:
    faces = torch.rand(2, 1, 12, 12)
    one, other = flip(faces)
    assert one.equal(faces)
    assert other.flip(-1).equal(faces)


def test_ten_crop_sees_corners_and_centre_and_their_mirrors() -> None:
    tta = ten_crop(torch.rand(2, 1, 48, 48))
    assert len(tta) == 10
    assert all(view.shape == (2, 1, 48, 48) for view in tta)
    assert tta[1].equal(tta[0].flip(-1))


@pytest.mark.parametrize("tta", TTA)
def test_views_average_probabilities(tta: str) -> None:
    faces = torch.rand(3, 1, 48, 48)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48 * 48, 4))
    expected = sum(net(view).softmax(1) for view in TTA[tta](faces)) / len(TTA[tta](faces))
    torch.testing.assert_close(mean_probabilities(tta_logits(net, faces, tta)), expected)


def test_zoom_is_resize_and_centre_crop() -> None:
    """To 255, then the middle 224, as ImageNet evaluation has it; torchvision's own parts."""
    found = Preprocess(224, 1, [0.0], [1.0], zoom=1.14)(GREY)
    large = reference.resize(GREY[:, None] / 255, [255, 255], antialias=False)
    torch.testing.assert_close(found, reference.center_crop(large, [224, 224]), atol=1e-5, rtol=0)


def test_zoom_keeps_what_a_larger_source_has_to_show() -> None:
    large = torch.randint(0, 256, (2, 100, 100), dtype=torch.uint8)
    assert Preprocess(64, 1, [0.0], [1.0], zoom=1.14).unpack(large).shape == (2, 1, 73, 73)
    assert Preprocess(64, 1, [0.0], [1.0], zoom=1.14)(large).shape == (2, 1, 64, 64)


def test_a_zoom_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"zoom 0\.9; expected 1"):
        Preprocess(48, 1, [0.5], [0.5], zoom=0.9)
