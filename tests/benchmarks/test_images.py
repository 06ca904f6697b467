"""The benchmark of many images has results for each number and leaves no files."""

import tempfile
from pathlib import Path

import pytest

from emotion.bench import bench
from emotion.benchmarks.images import render_lists
from emotion.config.compose import compose
from emotion.data.readers import path_list
from emotion.errors import UserError

SMALL = ("measure=images", "model=baseline_cnn", "batch_size=8", "steps=2", "image_size=32", "trainer.accelerator=cpu")


def test_rendered_lists_are_distinct_images_of_mixed_sizes(tmp_path: Path) -> None:
    render_lists(tmp_path, 60, (64, 320), seed=0)
    source = path_list.read(*(str(tmp_path / f"{part}.csv") for part in ("train", "val", "test")))
    contents = [file.read_bytes() for file in source.files]
    assert source.num_faces == 60
    assert len(set(contents)) == len(contents) == 3 + 60


@pytest.mark.exhaustive
def test_each_number_of_images_has_rates_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Path("run").mkdir()
    (details,) = bench(compose("bench", *SMALL, "images=[60]"), Path("run"))["measured"]
    (result,) = details["images"]
    assert result["images"] == 60
    assert result["prepared_mb"] == pytest.approx(60 * (32 * 32 * 3 + 2 + 96) / 1e6, rel=0.05)
    assert result["preparing_anonymous_mb"] >= result["start_anonymous_mb"] > 0
    assert min(result["prepared_per_second"], result["loaded_per_second"]) > 0
    assert not list(tmp_path.glob("emotion-bench-*"))


@pytest.mark.parametrize("images", ["[5]", "[]"])
def test_too_few_images_are_refused(images: str) -> None:
    with pytest.raises(UserError, match="expected numbers of at least 16, twice the batch size"):
        bench(compose("bench", *SMALL, f"images={images}"), Path("run"))
