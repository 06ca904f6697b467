"""Stop a run of a search that performs worse than the others."""

from typing import TYPE_CHECKING

import lightning as L

from emotion.errors import Pruned

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage
    from optuna.trial import Trial


def open_storage(url: str) -> "RDBStorage":
    """Open the database of a study; for an SQLite file, wait up to 60 s while other processes write."""
    import optuna

    engine = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else None
    return optuna.storages.RDBStorage(url, engine_kwargs=engine)


class Pruning(L.Callback):
    """Report each epoch's score to the study, and raise `Pruned` in all processes if its pruner decides so.

    An epoch is reported when the next one starts: by then all its metrics are logged and its checkpoint is saved.
    `storage` is the URL of the study's database, `number` the trial's number.
    """

    def __init__(self, storage: str, study: str, number: int, metric: str, pruner: "BasePruner") -> None:
        self.storage, self.study, self.number, self.metric, self.pruner = storage, study, number, metric, pruner
        self.trial: Trial | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load the trial in the first process."""
        if trainer.is_global_zero:
            import optuna

            study = optuna.load_study(study_name=self.study, storage=open_storage(self.storage), pruner=self.pruner)
            self.trial = optuna.Trial(study, study.get_trials(deepcopy=False)[self.number]._trial_id)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the previous epoch; a resumed run may report an epoch again, which Optuna ignores."""
        epoch, score = trainer.current_epoch - 1, trainer.callback_metrics.get(self.metric)
        prune = False
        if self.trial and score is not None and epoch >= 0:
            self.trial.report(float(score), epoch)
            prune = self.trial.should_prune()
        if trainer.strategy.broadcast(prune):
            raise Pruned(epoch + 1, float(score) if score is not None else float("nan"))
