"""Benchmark training, data loading, inference and start-up, compared with common practice.

python -m emotion.bench [measure=NAME] [models=[NAME,NAME]]; each measure is a file in emotion/benchmarks.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.benchmarks.config import BenchConfig
from emotion.cli import verb
from emotion.config.compose import PACKAGE, as_list, choices, compose
from emotion.errors import UserError
from emotion.reporting.text import relative_path

MEASURES = sorted(
    path.stem
    for path in (PACKAGE / "benchmarks").glob("*.py")
    if path.stem not in ("__init__", "config", "measurement")
)
PER_MODEL = ("training", "latency", "explanations", "bf16")
"""Measures that run for every model; the others run once."""


def bench(cfg: DictConfig, run_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run the benchmarks of `measure`, print their table and write record.json in `run_dir`; return the record.

    The config of each of `models` is composed with the same `overrides` as `cfg`.

    Raises:
        UserError: A setting is invalid, or a benchmark cannot be run.
    """
    from emotion.benchmarks.measurement import Measurement, print_measurements
    from emotion.io.atomic import write_json
    from emotion.records.run_record import RECORD, provenance
    from emotion.runtime.hardware import device_name
    from emotion.training.setup import resolve_as

    config = resolve_as(BenchConfig, cfg, run_dir)
    shared = [override for override in overrides if override.partition("=")[0] not in ("model", "models")]
    models = [
        resolve_as(BenchConfig, compose("bench", *shared, f"model={model}"), run_dir)
        for model in as_list(config.models or [])
    ]
    machine = device_name(config.trainer["accelerator"])
    record: dict[str, Any] = {**provenance(), "machine": machine, "measured": [], "scoreboard": []}
    measurements: list[Measurement] = []
    for name in _measures(cfg):
        for model in (models if name in PER_MODEL else []) or [config]:
            print(f"{name} ...", flush=True)
            details, added = importlib.import_module(f"emotion.benchmarks.{name}").run(model)
            measurements += added
            record["measured"].append({"measure": name} | details)
            record["scoreboard"] = [measurement.to_dict() for measurement in measurements]
            write_json(run_dir / RECORD, record)  # keeps these results if the next benchmark fails
    print_measurements(measurements, machine)
    print(f"wrote {run_dir / RECORD}")
    return record


def _measures(cfg: DictConfig) -> list[str]:
    names = MEASURES if cfg.measure == "all" else as_list(cfg.measure)
    if not names or set(names) - set(MEASURES):
        raise UserError(f"measure={cfg.measure}: expected some of {', '.join(MEASURES)}, or all.")
    return names


def _check(cfg: DictConfig) -> None:
    """Raise UserError if a measure or a model does not exist."""
    _measures(cfg)
    if unknown := [str(name) for name in as_list(cfg.models or []) if name not in choices("model")]:
        expected = ", ".join(choices("model"))
        raise UserError(f"models={cfg.models}: {', '.join(unknown)} not found; expected some of {expected}.")


@verb("bench", uses_torch=True, check=_check)
def main(cfg: DictConfig) -> None:
    """Run in the folder that Hydra created."""
    hydra = HydraConfig.get()
    bench(cfg, relative_path(Path(hydra.runtime.output_dir)), hydra.overrides.task)


if __name__ == "__main__":
    main()
