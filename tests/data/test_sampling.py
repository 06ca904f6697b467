import pytest
import torch

from emotion.data.dataloader import shuffled, weighted

LABELS = torch.tensor([0] * 9000 + [1] * 900 + [2] * 100)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shuffled_takes_every_face_once() -> None:
    assert shuffled(LABELS, generator()).sort().values.equal(torch.arange(10_000))


@pytest.mark.parametrize(
    ("power", "shares"),
    [(0, [0.9, 0.09, 0.01]), (1, [1 / 3, 1 / 3, 1 / 3]), (0.5, [0.7034, 0.2224, 0.0742])],  # 95 : 30 : 10 of 135
)
def test_weighted_shares_are_counts_to_the_power_left(power: float, shares: list[float]) -> None:
    drawn = LABELS[weighted(LABELS, generator(), power)].bincount(minlength=3) / len(LABELS)
    assert drawn.tolist() == pytest.approx(shares, abs=0.015)  # three deviations of a share of 10,000


def test_weighted_draws_faces_of_a_class_evenly() -> None:
    drawn = torch.cat([weighted(LABELS, generator(seed), 1.0) for seed in range(30)])
    often = drawn[drawn >= 9900].bincount(minlength=10_000)[9900:].float()
    assert often.mean() == pytest.approx(1000, rel=0.02)
    assert often.std() < 2 * 1000**0.5


def test_drawing_is_a_function_of_the_generator() -> None:
    one, same, other = (weighted(LABELS, generator(seed)) for seed in (1, 1, 2))
    assert one.equal(same)
    assert not one.equal(other)
