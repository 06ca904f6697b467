"""The scoreboard: how fast this package trains, reads, answers and starts, against how it is commonly done.

python -m emotion.bench [measure=NAME] [models=[NAME,NAME]]; emotion/benchmarks has a file for each measure.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.cli import verb
from emotion.config.compose import compose, listed
from emotion.errors import UserError
from emotion.reporting.text import near

if TYPE_CHECKING:
    from emotion.benchmarks.measurement import Line, Measured

Settings = dict[str, Any]
OF_A_MODEL = ("training", "latency", "explanations", "kernels")
"""Measured for every model; the others once."""


def bench(cfg: DictConfig, run_dir: Path, overrides: Sequence[str] = ()) -> Settings:
    """What `measure` names, measured, printed as one table and written to record.json in `run_dir`.

    Args:
        cfg: of conf/bench.yaml.
        run_dir: the folder, which is there.
        overrides: those that `cfg` was composed with; the models of `models` are composed with the same.

    Raises:
        UserError: something given is missing or wrong.
    """
    from emotion.benchmarks.measurement import print_scoreboard
    from emotion.records import run_record
    from emotion.runtime.hardware import description
    from emotion.training import setup

    settings = setup.resolve(cfg, run_dir)
    measures, wanted = _measures(), listed(settings["measure"])
    if wanted == ["all"]:
        wanted = list(measures)
    if not wanted or set(wanted) - set(measures):
        raise UserError(f"measure={settings['measure']}: expected some of {', '.join(measures)}, or all.")
    models = [settings]
    if settings["models"]:
        models = [
            setup.resolve(compose("bench", *_without_model(overrides), f"model={name}"), run_dir)
            for name in listed(settings["models"])
        ]
    device = description(settings["trainer"]["accelerator"])
    record: Settings = {
        "command": run_record.command(), "commit": run_record.commit(), "versions": run_record.versions(),
        "machine": device, "measured": [], "scoreboard": [],
    }  # fmt: skip
    lines: list[Line] = []
    for name in wanted:
        for one in models if name in OF_A_MODEL else [settings]:
            print(f"{name} ...", flush=True)
            found, more = measures[name](one)
            lines += more
            record["measured"].append({"measure": name} | found)
            record["scoreboard"] = [line._asdict() | {"times": line.times()} for line in lines]
            run_record.write_record(run_dir, record)  # what is measured is kept, whatever comes next
    print_scoreboard(lines, device)
    print(f"wrote {run_dir / run_record.RECORD}")
    return record


def _measures() -> dict[str, "Callable[[Settings], Measured]"]:
    from emotion.benchmarks.demo import bench_demo
    from emotion.benchmarks.explanations import bench_explanations
    from emotion.benchmarks.images import bench_images
    from emotion.benchmarks.latency import bench_kernels, bench_latency
    from emotion.benchmarks.preparing import bench_preparing, bench_start_up
    from emotion.benchmarks.sweeps import bench_sweeps, bench_time_to_accuracy
    from emotion.benchmarks.training import bench_training

    return {
        "training": bench_training,
        "latency": bench_latency,
        "preparing": bench_preparing,
        "start_up": bench_start_up,
        "explanations": bench_explanations,
        "kernels": bench_kernels,
        "demo": bench_demo,
        "images": bench_images,
        "sweeps": bench_sweeps,
        "time_to_accuracy": bench_time_to_accuracy,
    }


def _without_model(overrides: Sequence[str]) -> list[str]:
    return [override for override in overrides if override.split("=")[0] not in ("model", "models")]


@verb("bench")
def main(cfg: DictConfig) -> None:
    """Measure in the folder that Hydra made."""
    hydra = HydraConfig.get()
    bench(cfg, near(Path(hydra.runtime.output_dir)), hydra.overrides.task)


if __name__ == "__main__":
    main()
