import re
from pathlib import Path

import pytest
from hydra.errors import HydraException

from emotion.config.compose import compose
from emotion.config.overrides import check_additions, check_types, explain
from emotion.errors import UserError
from emotion.training.setup import resolve
from tests.conftest import representative

ANSWERS = {
    "ckpt_path=x": r"resume=RUN continues a run; model\.weights=RUN",
    "lr=1": r"use optimizer\.lr=",
    "model.optimizer.lr=1": r"use optimizer\.lr=",
    "model.optimizer.weight_decay=1": r"use optimizer\.weight_decay=",
    "optimizer.learning_rate=1": r"use optimizer\.lr=",
    "data.batch_size=1": r"use batch_size=",
    "datamodule.batch_size=1": r"use batch_size=",
    "datamodule=mnist": r"use data=",
    "epochs=1": r"use trainer\.max_epochs=",
    "max_epochs=1": r"use trainer\.max_epochs=",
    "hparams_search=optuna": r"use sweep=",
    "task_name=x": r"use name=",
    "test=False": r"always evaluated on test once.*python -m emotion\.evaluate checkpoint=RUN",
    "train=False": r"python -m emotion\.evaluate checkpoint=RUN",
    "accelerator=gpu": r"did you mean trainer\.accelerator=",
    "optimiser=adam": r"did you mean optimizer=",
    "~callbacks.early_stoping": r"did you mean callbacks\.early_stopping=",
    "+seed=1": r"seed exists; write seed=VALUE without the \+",
    "+optimizer=adam": r"optimizer exists; write optimizer=VALUE without the \+",
    "model=fastcnn": r"^model=fastcnn: did you mean model=fast_cnn\b.*\nIn 'train': Could not find",
    "optimizer=adamW": r"^optimizer=adamW: did you mean optimizer=adam or optimizer=adamw\?",
    "hydra/launcher=submitit_slrm": r"^hydra/launcher=submitit_slrm: did you mean hydra/launcher=submitit_slurm",
    "logger=null": r"logger=null: choose one of csv, default",
    "qwertz=1": r"train has no setting qwertz=; --cfg job lists every setting",
}


@pytest.mark.parametrize(
    "override",
    representative(
        list(ANSWERS),
        "model.optimizer.lr=1",
        "data.batch_size=1",
        "test=False",
        "optimiser=adam",
        "+seed=1",
        "model=fastcnn",
        "qwertz=1",
    ),
)
def test_a_refused_override_is_explained(override: str) -> None:
    with pytest.raises((HydraException, ValueError)) as error:
        compose("train", override)
    message = explain("train", ["batch_size=8", override], error.value)
    assert message
    assert "struct" not in message
    with pytest.raises(UserError, match=ANSWERS[override]):
        raise UserError(message)


def test_the_answer_depends_on_the_verb() -> None:
    with pytest.raises(UserError, match=r"evaluate has no setting ckpt_path=; use checkpoint="):
        check_additions("evaluate", ["+ckpt_path=x"])
    with pytest.raises(UserError, match=r"evaluate has no setting trainer\.devices="):
        check_additions("evaluate", ["+trainer.devices=1"])


@pytest.mark.parametrize("override", ["+lr=0.1", "+train=False", "++foo=1", "+monitor.foo=1", "+compile.tpu=true"])
def test_an_addition_that_no_part_reads_is_refused(override: str) -> None:
    with pytest.raises(UserError, match="train has no setting"):
        check_additions("train", ["seed=1", override])


@pytest.mark.parametrize(
    "override", ["+trainer.fast_dev_run=true", "+optimizer.nesterov=true", "++seed=1", "+callbacks.x.y=1", "+hydra.x=1"]
)
def test_an_addition_to_a_part_is_left_to_that_part(override: str) -> None:
    check_additions("train", [override])


@pytest.mark.parametrize(
    ("verb", "override"),
    [
        ("train", "seed=abc"),
        ("train", "optimizer.lr=fast"),
        ("train", "trainer.max_epochs=abc"),
        ("train", "model.widths=[a]"),
        ("train", "input.size=true"),
        ("train", "callbacks.tensorboard_pictures.faces=x"),
        ("demo", "limits.megabytes=ten"),
        ("audit", "near.bits=x"),
        ("predict", "detector.threshold=high"),
    ],
)
def test_a_word_for_a_number_is_refused(verb: str, override: str) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(override)}: expected a number.*, such as"):
        check_types(verb, [override], compose(verb, override))


@pytest.mark.parametrize(
    "override",
    [
        "trainer.devices=2",
        "trainer.devices=auto",
        "optimizer=sgd",
        "model.dropout=0",
        "model.dropout=[0,1]",
        "compile.cpu=default",
        "tta=none",
    ],
)
def test_a_value_of_another_type_that_is_valid_is_left(override: str) -> None:
    check_types("train", ["model=v4_attention", override], compose("train", "model=v4_attention", override))


def test_an_unknown_key_of_a_config_file_is_answered_by_the_nearest_setting() -> None:
    with pytest.raises(UserError, match=r"optimzer= is not a setting; did you mean optimizer=\?"):
        resolve(compose("train", "+optimzer.lr=1"), Path("run"))
