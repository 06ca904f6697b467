"""The bench of many images leaves a figure for each number and nothing else."""

import tempfile
from pathlib import Path

import pytest

from emotion.bench import bench
from emotion.benchmarks.images import draw_lists
from emotion.config.compose import compose
from emotion.data.readers import path_list
from emotion.errors import UserError
from emotion.records.run_record import read_record

SMALL = ("measure=images", "model=baseline_cnn", "batch_size=16", "steps=3", "image_size=32", "trainer.accelerator=cpu")


def test_drawn_lists_are_distinct_images_of_mixed_sizes(tmp_path: Path) -> None:
    draw_lists(tmp_path, 60, (64, 320), seed=0)
    readings = path_list.read(*(str(tmp_path / f"{part}.csv") for part in ("train", "val", "test")))
    contents = [file.read_bytes() for file in readings.files]
    assert readings.expected == 60
    assert len(set(contents)) == len(contents) == 3 + 60


def test_each_number_has_its_rates_and_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Path("run").mkdir()
    bench(compose("bench", *SMALL, "images=[300]"), Path("run"))
    (measured,) = (read_record(Path("run")) or {})["measured"]
    (found,) = measured["images"]
    assert found["images"] == 300
    assert found["prepared_mb"] == pytest.approx(300 * (32 * 32 * 3 + 2 + 96) / 1e6, rel=0.01)
    assert found["preparing_anonymous_mb"] >= found["start_anonymous_mb"] > 0
    assert min(found["prepared_per_second"], found["loaded_per_second"]) > 0
    assert not list(tmp_path.glob("emotion-bench-*"))


@pytest.mark.parametrize("wrong", ["measure=speed", "images=[5]", "images=[]"])
def test_what_cannot_be_measured_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match=r"expected (some of training, latency|numbers from 32 on)"):
        bench(compose("bench", *SMALL, wrong), Path("run"))
