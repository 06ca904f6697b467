"""Search with Optuna: each run of the sweep is a trial, which asks the study for its overrides when it starts.

Any launcher works, several processes can share a study, and the trial of a killed process is resumed.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf, open_dict

from emotion.callbacks.pruning import open_storage
from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.config.resume import is_location
from emotion.errors import Pruned, Stopped, UserError, first_line, missing_extra
from emotion.io.atomic import make_folder
from emotion.records.run_record import RunRecord
from emotion.sweeps.sweep import parse_overrides

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

DATABASE, LOCK = "study.db", ".study.lock"
SEARCH_ATTRIBUTE, FOLDER_ATTRIBUTE = "search", "folder"
"""User attributes of a study: the search space and the settings that all trials share; the folder of the sweep."""
INDEX_ATTRIBUTE = "index"
"""User attribute of a trial: the index of its run in the sweep."""


def run_trial(train: Callable[[DictConfig, Path], float], cfg: DictConfig, run_dir: Path) -> float:
    """Train with the overrides that the study suggests, report the result to the study and return the score.

    Raises:
        UserError: The study belongs to another search, or cannot be opened.
    """
    from optuna.trial import TrialState

    folder = Path(HydraConfig.get().sweep.dir)
    study = open_study(cfg, folder)
    trial = _find_or_ask_trial(study, cfg, folder)
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        print(f"{run_dir}: trial {cfg.study.trial} is {trial.state.name.lower()}; nothing to do", flush=True)
        return float(trial.value or 0)
    try:
        trial_cfg = _compose_trial(cfg, folder, trial)
        print(f"{run_dir}: trial {cfg.study.trial}: {' '.join(trial_cfg.study.overrides)}", flush=True)
        score = train(trial_cfg, run_dir)
    except Pruned as pruned:
        record = RunRecord.read(run_dir) or RunRecord()
        record.pruned = {"epoch": pruned.epochs, "score": pruned.score}
        record.write(run_dir)
        study.tell(trial.number, state=TrialState.PRUNED)
        print(f"{run_dir}: {pruned}")
        return pruned.score
    except Stopped:  # resumed with the sweep
        raise
    except Exception:
        study.tell(trial.number, state=TrialState.FAIL)
        raise
    study.tell(trial.number, score)
    return score


def open_study(cfg: DictConfig, folder: Path) -> "Study":
    """Open or create the study in the sweep's folder, or in the database `study.storage`.

    Raises:
        UserError: The database cannot be opened, or the study belongs to another search.
    """
    import optuna
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage_url(cfg, folder)
    search = {"space": list(cfg.study.space), "fixed": list(cfg.study.fixed), **OmegaConf.to_container(cfg.monitor)}  # type: ignore[dict-item]
    make_folder(folder)
    try:
        with FileLock(folder / LOCK):
            study = optuna.create_study(
                storage=open_storage(url),
                study_name=cfg.study.name,
                direction="maximize" if cfg.monitor.mode == "max" else "minimize",
                pruner=instantiate(cfg.study.pruner) if cfg.study.pruner else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            existing = study.user_attrs.get(SEARCH_ATTRIBUTE)
            if existing is None:
                study.set_user_attr(SEARCH_ATTRIBUTE, existing := search)
                study.set_user_attr(FOLDER_ATTRIBUTE, str(folder))
    except (SQLAlchemyError, OptunaError, ImportError, RuntimeError, ValueError) as error:
        raise UserError(f"study.storage: {url} cannot be opened: {first_line(error)}") from error
    before, now = (
        {**one, "fixed": [override for override in one["fixed"] if not is_location(override)]}
        for one in (existing, search)
    )
    if differing := [key for key in now if _unordered(before[key]) != _unordered(now[key])]:
        differences = "; ".join(f"its {key} is {existing[key]}, found {search[key]}" for key in differing)
        other = "study.name=NAME" if cfg.study.storage else "hydra.sweep.dir=FOLDER"
        raise UserError(
            f"{url} belongs to another search: {differences}. Use the same settings, or start another search: {other}."
        )
    owner = study.user_attrs.get(FOLDER_ATTRIBUTE)
    if cfg.study.storage and owner not in (None, str(folder)):  # its trials have their runs there
        raise UserError(
            f"{url} belongs to the search in {owner}; continue it there, hydra.sweep.dir={owner}, or start another "
            f"search: study.name=NAME."
        )
    return study


def storage_url(cfg: DictConfig, folder: Path) -> str:
    """Return the database URL of the study: `study.storage`, or a file in the sweep's folder."""
    return str(cfg.study.storage or f"sqlite:///{folder / DATABASE}")


def check_search_space(cfg: DictConfig) -> None:
    """Check that the search space has values to try, and that a trial's config composes.

    Raises:
        UserError: Optuna is not installed, or a setting of the space has no values to try.
        HydraException: The space has an unknown setting.
    """
    try:
        from optuna.distributions import CategoricalDistribution
    except ModuleNotFoundError as error:
        raise missing_extra("a search", error.name, "sweep") from error

    values = {
        key: values.choices[0] if isinstance(values, CategoricalDistribution) else values.low  # type: ignore[attr-defined]
        for key, values in distributions(cfg.study.space).items()
    }
    compose("train", *cfg.study.fixed, *(f"{key}={value}" for key, value in values.items()))


def distributions(lines: Sequence[str]) -> dict[str, "BaseDistribution"]:
    """Convert a search space in Hydra's syntax: choices, `range` and `interval` with the tags log and int.

    Raises:
        UserError: A setting has no values to try.
    """
    space = {}
    for override in parse_overrides(lines):
        try:
            space[str(override.get_key_element())] = _distribution(override)
        except (ValueError, IndexError) as error:
            raise UserError(f"study.space: {override.input_line}: {error}; expected values to try.") from error
    return space


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    swept: Any = override.value()
    if not override.is_sweep_override():
        raise UserError(
            f"study.space: {override.input_line} has one value; expected KEY=A,B,C, KEY=range(FROM,TO,STEP), "
            f"KEY=interval(FROM,TO) or KEY=tag(log,interval(FROM,TO))."
        )
    if isinstance(swept, IntervalSweep):
        low, high, log = swept.start, swept.end, "log" in swept.tags
        if low is None or high is None or not low < high or (log and low <= 0):
            raise UserError(f"study.space: {override.input_line}; expected FROM below TO, and above 0 for log.")
        if "int" in swept.tags:
            return IntDistribution(int(low), int(high), log)
        return FloatDistribution(float(low), float(high), log)
    texts = list(override.sweep_string_iterator())
    if isinstance(swept, RangeSweep):
        values = [json.loads(text) for text in texts]
        values = [value for value in values if value < swept.stop] or values  # rounding can add one
        step = round(values[1] - values[0], 12) if len(values) > 1 else 1
        if all(isinstance(value, int) for value in values):
            return IntDistribution(values[0], values[-1], step=step)
        return FloatDistribution(values[0], round(values[-1], 12), step=step)
    return CategoricalDistribution(texts)


def _unordered(value: object) -> object:
    return set(value) if isinstance(value, list) else value


def trial_overrides(trial: "FrozenTrial") -> list[str]:
    """Return the overrides of a trial as on the command line."""
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in trial.params.items()}
    return [f"{key}={value}" for key, value in values.items()]


def _find_or_ask_trial(study: "Study", cfg: DictConfig, folder: Path) -> "FrozenTrial":
    """Return the trial of this run, or a new one; a failed trial is repeated with the same overrides.

    A new trial depends on the seed, the index of the run and the trials that have finished.
    """
    import optuna
    from optuna.trial import TrialState

    index, space = cfg.study.trial, distributions(cfg.study.space)
    study.sampler = optuna.samplers.TPESampler(
        seed=(cfg.study.seed * 1_000_003 + index) % 2**32,
        n_startup_trials=cfg.study.n_startup_trials,
        constant_liar=True,
    )
    with FileLock(folder / LOCK):
        trials = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(INDEX_ATTRIBUTE) == index]
        if trials and trials[-1].state is not TrialState.FAIL:
            return trials[-1]
        if trials:
            study.enqueue_trial(trials[-1].params)
        trial = study.ask(space)
        trial.set_user_attr(INDEX_ATTRIBUTE, index)
        return study.get_trials(deepcopy=False)[trial.number]


def _compose_trial(cfg: DictConfig, folder: Path, trial: "FrozenTrial") -> DictConfig:
    """Compose the config of a trial: the overrides of the sweep, then those of the trial, and a pruning callback."""
    overrides = trial_overrides(trial)
    of_hydra = [override for override in cfg.study.fixed if override.startswith("hydra.")]  # a folder of configs
    trial_cfg = compose("train", *of_hydra, *HydraConfig.get().overrides.task, *overrides)
    trial_cfg.study.overrides = overrides
    trial_cfg.resume = cfg.resume
    if cfg.study.pruner:
        with open_dict(trial_cfg.callbacks):
            trial_cfg.callbacks.pruning = {
                "_target_": "emotion.callbacks.pruning.Pruning",
                "storage": storage_url(cfg, folder),
                "study": cfg.study.name,
                "number": trial.number,
                "metric": cfg.monitor.metric,
                "pruner": cfg.study.pruner,
            }
    return trial_cfg
