"""Stops a run of a search that falls behind the others."""

from typing import TYPE_CHECKING

import lightning as L

from emotion.errors import Pruned

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage
    from optuna.trial import Trial


def storage_at(address: str) -> "RDBStorage":
    """A study's database; a file is waited for while other processes write."""
    import optuna

    waiting = {"connect_args": {"timeout": 60}} if address.startswith("sqlite:") else None
    return optuna.storages.RDBStorage(address, engine_kwargs=waiting)


class Pruning(L.Callback):
    """Tells the study each epoch's score and raises `Pruned`, in every process of the run, where its pruner says so.

    An epoch is told when the next one begins: by then all that it logged is known, and its checkpoint is written.

    Args:
        storage: address of the study's database.
        study: its name there.
        number: of the trial in it.
        metric: what is told.
        pruner: Optuna's, which judges the trial against the others.
    """

    def __init__(self, storage: str, study: str, number: int, metric: str, pruner: "BasePruner") -> None:
        self.storage, self.study, self.number, self.metric, self.pruner = storage, study, number, metric, pruner
        self.trial: Trial | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the trial; one process speaks to the study."""
        if trainer.is_global_zero:
            import optuna

            study = optuna.load_study(study_name=self.study, storage=storage_at(self.storage), pruner=self.pruner)
            self.trial = optuna.Trial(study, study.get_trials(deepcopy=False)[self.number]._trial_id)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell the former epoch, unless that was done before the run was stopped and resumed."""
        epoch, score = trainer.current_epoch - 1, trainer.callback_metrics.get(self.metric)
        behind = False
        if self.trial and score is not None and epoch >= 0:
            self.trial.report(float(score), epoch)
            behind = self.trial.should_prune()
        if trainer.strategy.broadcast(behind):
            raise Pruned(epoch, float(score) if score is not None else float("nan"))
