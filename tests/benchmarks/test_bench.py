"""Every benchmark adds its details to the record and its measurements to the table."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion.bench import MEASURES, bench, main
from emotion.benchmarks import measurement
from emotion.config.compose import VERBS, compose
from emotion.errors import UserError
from tests.conftest import record_of, signal_at

QUICK = ("trainer.accelerator=cpu", "seconds=0.05", "rounds=1", "model=compact_cnn")
SYNTHETIC = ("data=synthetic", "data.training=40", "data.public_test=4", "data.private_test=4", "batch_size=16")


def run(*overrides: str) -> list[dict[str, Any]]:
    """The details of the benchmarks run in the folder `run`."""
    Path("run").mkdir()
    details: list[dict[str, Any]] = bench(
        compose("bench", *QUICK, *overrides), Path("run"), overrides=(*QUICK, *overrides)
    )["measured"]
    return details


def measurements() -> list[dict[str, Any]]:
    """The measurements in the record."""
    rows: list[dict[str, Any]] = json.loads(Path("run/record.json").read_text())["scoreboard"]
    return rows


def test_training_is_compared_with_a_baseline_and_a_bare_loop_for_each_model() -> None:
    results = run("measure=training", "models=[compact_cnn,simple_cnn]", *SYNTHETIC)
    assert [result["model"].rsplit(".", 1)[-1] for result in results] == ["CompactCNN", "SimpleCNN"]
    for result in results:
        rates = result["faces_per_second"]
        assert min(rate for rounds in rates.values() for rate in rounds) > 0
        assert result["training_over_baseline"] == rates["training"][0] / rates["training, baseline"][0]
        assert result["lightning_overhead"] == rates["training, bare loop"][0] / rates["training"][0] - 1
    rows = [row for row in measurements() if row["name"] == "SimpleCNN: training, batch 16"]
    assert [row["baseline"] for row in rows] == ["a tutorial's loop", "a bare loop"]


@pytest.mark.hard
def test_latency_and_reading_are_measured() -> None:
    latency, reading = run("measure=[latency,reading]", "rows=300")
    assert latency["milliseconds"].keys() == {"torch", "onnx", "onnx int8"}
    assert latency["bytes"]["onnx int8"] < latency["bytes"]["onnx"]
    assert reading["seconds"].keys() == reading["memory_mb"].keys() == {"first", "again", "torchvision"}


@pytest.mark.hard
def test_startup_of_every_verb_is_measured() -> None:
    (result,) = run("measure=startup")
    assert result["seconds"].keys() == {"import torch", *VERBS}
    assert {"train", "predict", "bench"} < set(VERBS)
    assert len(measurements()) == len(VERBS)


@pytest.mark.hard
def test_inference_is_compared_with_haar_and_pytorch() -> None:
    (result,) = run("measure=inference", "rounds=1")
    assert {tuple(times) for times in result["detectors"].values()} == {("BlazeFace", "Haar")}
    assert result["loading"]["light"][0][1] < result["loading"]["heavy"][0][1]
    assert [row["baseline"] for row in measurements()] == ["Haar"] * 2 + ["with PyTorch"] * 2 + [""] * 2


def test_measures_share_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    explanations, bf16 = run("measure=[explanations,bf16]", "faces=64")
    assert explanations["faces"] == 64
    assert explanations["gradcam_over_forward_and_backward"] > 0
    assert 0 < bf16["error"] < 0.02
    assert min(bf16["float32"], bf16["bfloat16"]) > 0
    assert [row["baseline"] for row in measurements()] == ["forward and backward", "float32", "allowed"]
    table = capsys.readouterr().out
    for text in ("CompactCNN: Grad-CAM", "forward and backward", "allowed"):
        assert text in table


@pytest.mark.hard
def test_the_demo_answers_clients_and_stops_at_sigterm() -> None:
    (result,) = run("measure=demo", "seconds=0.5", "clients=2")
    assert result["answers"] > 0
    assert (result["errors"], result["status"]) == ([], 143)
    assert result["p50_ms"] <= result["p95_ms"]


@pytest.mark.hard
def test_an_experiment_is_timed_from_its_start_to_its_scores() -> None:
    overrides = ",".join(f"'{override}'" for override in (*SYNTHETIC, "trainer.max_epochs=1"))
    (result,) = run("measure=time_to_accuracy", "experiments=[simple_cnn]", f"overrides=[{overrides}]")
    (timed,) = result["runs"]
    record = record_of(Path("run/simple_cnn"))
    assert timed["accuracy"] == {tta: record.test_scores[tta]["all"]["accuracy"][0] for tta in ("none", "flip")}
    assert record.wall_seconds
    assert timed["seconds"] > record.wall_seconds > record.fit_seconds > 0
    assert [row["name"] for row in measurements()][:2] == [
        "simple_cnn, start to scores",
        "simple_cnn, accuracy, tta=none",
    ]


@pytest.mark.hard
def test_a_failed_run_ends_the_bench_with_its_command() -> None:
    with pytest.raises(UserError, match=r"-m emotion.train experiment=simple_cnn .* exited with status 2; see its"):
        run("measure=time_to_accuracy", "experiments=[simple_cnn]", "overrides=['tta=many']")


def test_an_unknown_experiment_is_refused_before_the_first_starts(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"fast_cpu_44 is not an experiment; expected .*fast_cpu_4"):
        run("measure=time_to_accuracy", "experiments=[simple_cnn,fast_cpu_44]")
    assert "simple_cnn" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("seconds=-1", "a number above 0"),
        ("seconds=0", "a number above 0"),
        ("rounds=0", "an integer of at least 1"),
        ("images=[100,0]", "an integer of at least 1"),
        ("image_sides=[320,64]", r"\[LOW,HIGH\], each an integer of at least 1"),
        ("image_sides=[64.5,320]", r"\[LOW,HIGH\], each an integer of at least 1"),
        ("batch_size=0", "an integer of at least 1"),
        ("measure=speed", "some of bf16, .*, or all"),
        ("models=[v4_attention,nosuch]", "some of attention_cnn, .*"),
    ],
)
def test_settings_are_checked_before_libraries_load(
    setting: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("emotion.cli.announce_torch", lambda: pytest.fail("libraries are loaded"))
    monkeypatch.setattr(sys, "argv", ["bench", setting])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert re.search(rf"{setting.partition('=')[0]}=.*[:;] expected {expected}\.$", capsys.readouterr().err.strip())


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_while_it_trains(signum: int, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_at(monkeypatch, "training_step", 3, signum)
    monkeypatch.setattr(sys, "argv", ["bench", *QUICK, *SYNTHETIC, "measure=training"])
    with pytest.raises(SystemExit, match=str(status)):
        main()
    assert not list(Path.cwd().rglob("*.ckpt"))


def test_results_are_kept_when_the_next_benchmark_fails() -> None:
    with pytest.raises(UserError, match="clients=17: expected 1 to 16"):
        run("measure=[bf16,demo]", "clients=17")
    assert [result["measure"] for result in json.loads(Path("run/record.json").read_text())["measured"]] == ["bf16"]


def test_a_training_within_the_warm_up_is_refused() -> None:
    with pytest.raises(UserError, match="training took 2 steps; expected more than the 3 of the warm-up"):
        run("measure=training", *SYNTHETIC, "trainer.max_epochs=1", "trainer.limit_train_batches=2")


def test_a_demo_without_an_answer_is_no_result() -> None:
    with pytest.raises(UserError, match=r"measure=demo: no request was sent; expected answers within seconds=1e-09"):
        run("measure=demo", "seconds=1e-9", "clients=1")


@pytest.mark.hard
def test_the_overhead_of_a_sweep_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["measure=sweeps", "model=simple_cnn", "name=mine", "runs=5", "hydra.run.dir=run"]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    main()
    (result,) = json.loads(Path("run/record.json").read_text())["measured"]
    assert result["seconds"].keys() == {"composed", "besides_epochs", "listed", "ranked"}
    assert min(result["seconds"].values()) > 0
    assert result["megabytes"]["all"] > result["megabytes"]["last.ckpt"] > 7  # 595,655 parameters and two Adam states
    assert "list and rank 5 runs" in [row["name"] for row in measurements()]


@pytest.mark.parametrize("measure", ["speed", "[]"])
def test_an_unknown_measure_is_refused(measure: str) -> None:
    assert {"training", "latency", "images"} < set(MEASURES)
    with pytest.raises(UserError, match=r"expected some of bf16, .*training, or all"):
        run(f"measure={measure}")


def test_peak_memory_does_not_include_that_of_the_parent() -> None:
    array = np.ones(500_000_000, np.uint8)
    code = "from emotion.benchmarks.measurement import peak_memory; print(peak_memory())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(output) < array.nbytes / 1e6 < measurement.memory()["VmHWM"]


def test_rates_are_better_the_higher_and_other_values_the_lower() -> None:
    assert measurement.Measurement("", "faces/s", 30.0, "baseline", 10.0).ratio() == 3
    assert measurement.Measurement("", "s", 30.0, "baseline", 10.0).ratio() == pytest.approx(1 / 3)
    assert measurement.Measurement("", "s", 30.0).ratio() is None


def test_overlapping_spans_count_once() -> None:
    assert measurement.union_length([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
    assert measurement.union_length([]) == 0


def test_utilization_excludes_waiting() -> None:
    matrix = torch.ones(200, 200)

    def with_pauses() -> None:
        time.sleep(0.05)
        matrix @ matrix

    paused = measurement.utilization(with_pauses, 3, "cpu")
    assert paused < 0.5
    assert measurement.utilization(lambda: matrix @ matrix, 200, "cpu") > paused
