"""A search by Optuna: each run of the sweep is a trial, which asks for its overrides when it begins.

So any launcher will do, several processes may work on one study, and whoever is killed leaves a trial that goes on.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf, open_dict

from emotion.callbacks.pruning import storage_at
from emotion.config.compose import compose
from emotion.config.instantiate import build
from emotion.errors import Pruned, Stopped, UserError
from emotion.records import run_record
from emotion.sweeps.sweep import parsed

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

DATABASE, GUARD = "study.db", ".study.lock"
Train = Callable[[DictConfig, Path], float]


def trained(train: Train, cfg: DictConfig, run_dir: Path) -> float:
    """Train with what the study has this trial try, and tell it what came of that; the score.

    Raises:
        UserError: the study has another search space, or cannot be opened.
    """
    from optuna.trial import TrialState

    folder = Path(HydraConfig.get().sweep.dir)
    study = opened(cfg, folder)
    trial = _asked(study, cfg, folder)
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        print(f"{run_dir}: trial {cfg.study.trial} is {trial.state.name.lower()}; nothing to do", flush=True)
        return float(trial.value or 0)
    try:
        whole = _composed(cfg, folder, trial)
        print(f"{run_dir}: trial {cfg.study.trial} tries {' '.join(whole.study.tried)}", flush=True)
        score = train(whole, run_dir)
    except Pruned as pruned:
        record = run_record.read_record(run_dir) or {}
        run_record.write_record(run_dir, record | {"pruned": {"epoch": pruned.epoch, "score": pruned.score}})
        study.tell(trial.number, state=TrialState.PRUNED)
        print(f"{run_dir}: {pruned}")
        return pruned.score
    except Stopped:  # it goes on when the sweep does
        raise
    except Exception:
        study.tell(trial.number, state=TrialState.FAIL)
        raise
    study.tell(trial.number, score)
    return score


def opened(cfg: DictConfig, folder: Path) -> "Study":
    """The study in the sweep's folder, or in the database that is given; a new one where there is none.

    Raises:
        UserError: Optuna is missing, the database cannot be opened, or the study is of another search.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError("a search needs Optuna: pip install 'emotion[sweep]'.") from error
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = address(cfg, folder)
    asked = {"space": list(cfg.study.space), "fixed": list(cfg.study.fixed), **OmegaConf.to_container(cfg.monitor)}  # type: ignore[dict-item]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / GUARD):
            storage = storage_at(where)
            mode: Literal["maximize", "minimize"] = "maximize" if cfg.monitor.mode == "max" else "minimize"
            pruner = build(cfg.study.pruner) if cfg.study.pruner else optuna.pruners.NopPruner()
            study = optuna.create_study(
                storage=storage, study_name=cfg.study.name, direction=mode, load_if_exists=True, pruner=pruner
            )
            former = study.user_attrs.get("asked")
            if former is None:
                study.set_user_attr("asked", former := asked)
    except (SQLAlchemyError, OptunaError, ImportError, RuntimeError, ValueError) as error:
        raise UserError(f"study.storage: {where} cannot be opened: {str(error).splitlines()[0]}") from error
    differing = [key for key in asked if _set(former[key]) != _set(asked[key])]
    if differing:
        said = "; ".join(f"its {key} is {former[key]}, found {asked[key]}" for key in differing)
        raise UserError(
            f"{where} is a study of another search: {said}. Give it back, or begin another: "
            f"{'study.name=NAME' if cfg.study.storage else 'hydra.sweep.dir=FOLDER'}."
        )
    return study


def check(cfg: DictConfig) -> None:
    """Whether there is something to try, and a run that tries it composes.

    Raises:
        UserError: a line of the space that leaves nothing to try.
        HydraException: it names what no run has.
    """
    from optuna.distributions import CategoricalDistribution

    tried = {}
    for key, one in distributions(cfg.study.space).items():
        tried[key] = one.choices[0] if isinstance(one, CategoricalDistribution) else one.low  # type: ignore[attr-defined]
    compose("train", *cfg.study.fixed, *(f"{key}={value}" for key, value in tried.items()))


def address(cfg: DictConfig, folder: Path) -> str:
    """Of the study's database: the one that is given, or a file in the sweep's folder."""
    return str(cfg.study.storage or f"sqlite:///{folder / DATABASE}")


def distributions(lines: Sequence[str]) -> dict[str, "BaseDistribution"]:
    """Optuna's of a search space in Hydra's words: choices, `range` and `interval`, with the tags log and int.

    Raises:
        UserError: a line that sweeps over nothing.
    """
    found = {}
    for one in parsed(lines):
        try:
            found[str(one.get_key_element())] = _distribution(one)
        except (ValueError, IndexError) as error:
            raise UserError(f"study.space: {one.input_line}: {error}; expected values that can be tried.") from error
    return found


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    swept: Any = override.value()
    if not override.is_sweep_override():
        raise UserError(
            f"study.space: {override.input_line} leaves nothing to try; expected KEY=A,B,C, KEY=range(FROM,TO,STEP), "
            f"KEY=interval(FROM,TO) or KEY=tag(log,interval(FROM,TO))."
        )
    if isinstance(swept, IntervalSweep):
        low, high, log = swept.start, swept.end, "log" in swept.tags
        if low is None or high is None or not low < high or (log and low <= 0):
            raise UserError(f"study.space: {override.input_line}; expected FROM below TO, and above 0 for log.")
        whole = "int" in swept.tags
        return IntDistribution(int(low), int(high), log) if whole else FloatDistribution(float(low), float(high), log)
    texts = list(override.sweep_string_iterator())
    if isinstance(swept, RangeSweep):
        values = [json.loads(text) for text in texts]
        values = [value for value in values if value < swept.stop] or values  # rounding may have added one
        step = round(values[1] - values[0], 12) if len(values) > 1 else 1
        if all(isinstance(value, int) for value in values):
            return IntDistribution(values[0], values[-1], step=step)
        return FloatDistribution(values[0], round(values[-1], 12), step=step)
    return CategoricalDistribution(texts)


def _set(value: object) -> object:
    return set(value) if isinstance(value, list) else value


def overrides(trial: "FrozenTrial") -> list[str]:
    """What a trial tries, to be typed."""
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in trial.params.items()}
    return [f"{key}={value}" for key, value in values.items()]


def _asked(study: "Study", cfg: DictConfig, folder: Path) -> "FrozenTrial":
    """The trial of this number, as it was left or as the study now chooses it.

    One that failed is tried again. What is chosen follows from the seed, the number and the trials told so far.
    """
    import optuna
    from optuna.trial import TrialState

    slot, searched = cfg.study.trial, distributions(cfg.study.space)
    study.sampler = optuna.samplers.TPESampler(
        seed=cfg.study.seed * 1_000_003 + slot, n_startup_trials=cfg.study.startup, constant_liar=True
    )
    with FileLock(folder / GUARD):
        mine = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("slot") == slot]
        if not mine or mine[-1].state is TrialState.FAIL:
            if mine:
                study.enqueue_trial(mine[-1].params)
            trial = study.ask(searched)
            trial.set_user_attr("slot", slot)
            mine = [study.get_trials(deepcopy=False)[trial.number]]
    return mine[-1]


def _composed(cfg: DictConfig, folder: Path, trial: "FrozenTrial") -> DictConfig:
    """What the trial's run is composed of: the sweep's overrides, and over them what it tries."""
    task, tried = list(HydraConfig.get().overrides.task), overrides(trial)
    whole = compose("train", *task, *tried)
    whole.study.tried = tried
    whole.resume = cfg.resume
    if cfg.study.pruner:
        with open_dict(whole.callbacks):
            whole.callbacks.pruning = {
                "_target_": "emotion.callbacks.pruning.Pruning",
                "storage": address(cfg, folder),
                "study": cfg.study.name,
                "number": trial.number,
                "metric": cfg.monitor.metric,
                "pruner": cfg.study.pruner,
            }
    return whole
