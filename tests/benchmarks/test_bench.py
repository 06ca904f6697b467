"""The scoreboard: every measure leaves its figures in the record and its lines in the one table."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion.bench import bench
from emotion.benchmarks import measurement
from emotion.config.compose import VERBS, compose
from emotion.errors import UserError
from emotion.records.run_record import read_record

QUICK = ("trainer.accelerator=cpu", "seconds=0.05", "rounds=1")
DRAWN = ("data=synthetic", "data.training=40", "data.public_test=4", "data.private_test=4", "batch_size=16")


def measured(*overrides: str) -> list[dict[str, Any]]:
    """What the record of a bench in `run` holds."""
    Path("run").mkdir()
    bench(compose("bench", *QUICK, *overrides), Path("run"), overrides=(*QUICK, *overrides))
    found: list[dict[str, Any]] = (read_record(Path("run")) or {})["measured"]
    return found


def lines() -> list[dict[str, Any]]:
    """The scoreboard of that record."""
    found: list[dict[str, Any]] = json.loads(Path("run/record.json").read_text())["scoreboard"]
    return found


def test_training_is_held_against_the_textbook_and_a_bare_loop_for_each_model() -> None:
    found = measured("measure=training", "models=[compact_cnn,simple_cnn]", *DRAWN)
    assert [one["model"].rsplit(".", 1)[-1] for one in found] == ["CompactCNN", "SimpleCNN"]
    for one in found:
        rates = one["faces_per_second"]
        assert min(rate for rounds in rates.values() for rate in rounds) > 0
        assert one["training_over_textbook"] == rates["training"][0] / rates["training, textbook"][0]
        assert one["lightning_overhead"] == rates["training, bare loop"][0] / rates["training"][0] - 1
    trained = [line for line in lines() if line["what"] == "SimpleCNN trains, batch 16"]
    assert [line["against"] for line in trained] == ["the textbook loop", "a bare loop"]


def test_the_measures_follow_one_another_into_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    latency, preparing = measured("measure=[latency,preparing]", "model=compact_cnn", "rows=300")
    assert latency["milliseconds"].keys() == {"torch", "onnx", "onnx int8"}
    assert latency["bytes"]["onnx int8"] < latency["bytes"]["onnx"]
    assert preparing["seconds"].keys() == preparing["memory_mb"].keys() == {"first", "again", "torchvision"}
    table = capsys.readouterr().out
    for said in ("CompactCNN: one face, one thread, onnx int8", "fer2013.csv is read, first time", "torchvision"):
        assert said in table


@pytest.mark.hard
def test_every_verb_is_started() -> None:
    (found,) = measured("measure=start_up")
    assert found["seconds"].keys() == {"import torch", *VERBS}
    assert {"train", "predict", "bench"} < set(VERBS)
    assert len(lines()) == len(VERBS)


def test_maps_are_held_against_a_pass_over_the_same_faces() -> None:
    (found,) = measured("measure=explanations", "model=compact_cnn", "explained=64")
    assert found["faces"] == 64
    assert found["gradcam_over_forward_and_backward"] > 0


def test_layers_in_bfloat16_are_held_against_float32() -> None:
    (found,) = measured("measure=kernels", "model=compact_cnn")
    assert 0 < found["error"] < 0.02
    assert min(found["float32"], found["bfloat16"]) > 0
    assert [line["against"] for line in lines()] == ["float32", "allowed"]


@pytest.mark.hard
def test_clients_ask_a_server_that_sigterm_then_stops() -> None:
    (found,) = measured("measure=demo", "seconds=0.5", "clients=2")
    assert found["answers"] > 0
    assert (found["errors"], found["status"]) == ([], 143)
    assert found["p50_ms"] <= found["p95_ms"]
    with pytest.raises(UserError, match="clients=40: expected a whole number from 1 to 16"):
        bench(compose("bench", "measure=demo", "clients=40"), Path("run"))


@pytest.mark.hard
def test_a_run_is_timed_from_its_start_to_its_scores() -> None:
    given = ",".join(f"'{override}'" for override in (*DRAWN, "trainer.max_epochs=1"))
    (found,) = measured("measure=time_to_accuracy", "experiments=[simple_cnn]", f"given=[{given}]")
    (one,) = found["runs"]
    record = read_record(Path("run/simple_cnn")) or {}
    assert one["accuracy"] == {tta: record["scores"]["test"][tta]["all"]["accuracy"][0] for tta in ("none", "flip")}
    assert one["seconds"] > record["wall_seconds"] > record["fit_seconds"] > 0
    assert [line["what"] for line in lines()][:2] == ["simple_cnn, start to scores", "simple_cnn, accuracy, tta=none"]


def test_a_run_that_fails_ends_the_bench_with_its_command() -> None:
    with pytest.raises(UserError, match=r"-m emotion.train experiment=simple_cnn .* ended with status 2; its output"):
        measured("measure=time_to_accuracy", "experiments=[simple_cnn]", "given=['tta=many']")


def test_an_experiment_that_is_none_is_refused_before_the_first_begins(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"fast_cpu_44 is no experiment; expected .*fast_cpu_4"):
        measured("measure=time_to_accuracy", "experiments=[simple_cnn,fast_cpu_44]")
    assert "simple_cnn" not in capfd.readouterr().out


def test_what_was_measured_is_kept_when_the_next_cannot_be() -> None:
    with pytest.raises(UserError, match="clients=0"):
        measured("measure=[latency,demo]", "model=compact_cnn", "clients=0")
    assert [one["measure"] for one in (read_record(Path("run")) or {})["measured"]] == ["latency"]


def test_a_process_has_a_peak_of_its_own() -> None:
    held = np.ones(500_000_000, np.uint8)
    asks = "from emotion.benchmarks.measurement import peak; print(peak())"
    said = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout
    assert float(said) < held.nbytes / 1e6 < measurement.memory()["VmHWM"]


def test_rates_are_the_better_the_higher_and_all_else_the_lower() -> None:
    assert measurement.Line("", "faces/s", 30.0, "that", 10.0).times() == 3
    assert measurement.Line("", "s", 30.0, "that", 10.0).times() == pytest.approx(1 / 3)
    assert measurement.Line("", "s", 30.0).times() is None


def test_spans_that_overlap_count_once() -> None:
    assert measurement.covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
    assert measurement.covered([]) == 0


def test_the_share_of_the_time_that_a_device_computes_leaves_out_where_it_waits() -> None:
    numbers = torch.ones(200, 200)

    def with_pauses() -> None:
        time.sleep(0.05)
        numbers @ numbers

    assert measurement.busy_share(with_pauses, 3, "cpu") < 0.5
    assert measurement.busy_share(lambda: numbers @ numbers, 200, "cpu") > measurement.busy_share(with_pauses, 3, "cpu")


def test_a_sweep_costs_more_than_its_epochs() -> None:
    (found,) = measured("measure=sweeps", "model=simple_cnn", "runs=5")
    assert found["seconds"].keys() == {"composed", "besides_epochs", "listed", "ranked"}
    assert min(found["seconds"].values()) > 0
    assert found["megabytes"]["all"] > found["megabytes"]["last.ckpt"] > 7  # 595,655 parameters and Adam's two of each
    assert "5 runs are listed and ranked" in [line["what"] for line in lines()]
