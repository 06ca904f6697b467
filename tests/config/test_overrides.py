import re
from pathlib import Path

import pytest
from hydra.errors import HydraException

from emotion.config.compose import compose
from emotion.config.overrides import check_additions, check_dashes, check_types, explain
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
    "model=fastcnn": r"^model=fastcnn: model has no fastcnn; did you mean fast_cnn\? Expected one of attention_cnn, ",
    "optimizer=adamW": r"^optimizer=adamW: optimizer has no adamW; did you mean adam or adamw\?",
    "callbacks=[default,foo]": r": callbacks has no foo\. Expected some of best_checkpoint, .*weight_statistics",
    "hydra/launcher=submitit_slrm": r"submitit_slrm: hydra/launcher has no submitit_slrm; did you mean submitit_slurm",
    "seed=0,1": r"^seed=0,1: for several values, one after the other, add -m; a list is seed=\[0,1\]\.$",
    "model=v2_se,fast_cnn": r"^model=v2_se,fast_cnn: for several values, .* add -m; a list is model=\[v2_se,fast_cnn\]",
    "seed=range(3)": r"^seed=range\(3\): for several values, one after the other, add -m\.$",
    "logger=null": r"logger=null: choose one of csv, default",
    "data.count=3": r"train has no setting data\.count=; expected one of data\.candidates=, data\.fallback=\. --cfg",
    "qwertz=1": r"train has no setting qwertz=; --cfg job lists every setting",
}


@pytest.mark.parametrize(
    "override",
    representative(
        list(ANSWERS),
        "model.optimizer.lr=1",
        "data.batch_size=1",
        "test=False",
        "optimizer=adam",
        "+seed=1",
        "model=fastcnn",
        "data.count=3",
        "callbacks=[default,foo]",
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


def test_the_choices_of_a_searched_folder_are_named() -> None:
    folder = Path("mine/model")
    folder.mkdir(parents=True)
    (folder / "mynet.yaml").write_text("_target_: mynet.MyNet\n")
    arguments = ["hydra.searchpath=[file://mine]", "model=mynett"]
    message = explain("train", arguments, HydraException("In 'train': Could not find 'model/mynett'"))
    assert message
    assert message.startswith("model=mynett: model has no mynett; did you mean mynet?")


def test_the_settings_of_a_chosen_config_are_suggested() -> None:
    Path("mine/model").mkdir(parents=True)
    Path("mine/model/mynet.yaml").write_text("_target_: mynet.MyNet\nwidth: 8\n")
    arguments = ["hydra.searchpath=[file://mine]", "model=mynet", "model.wdth=3"]
    with pytest.raises(HydraException) as error:
        compose("train", *arguments)
    assert explain("train", arguments, error.value) == "train has no setting model.wdth=; did you mean model.width=?"


def test_the_answer_depends_on_the_verb() -> None:
    with pytest.raises(UserError, match=r"evaluate has no setting ckpt_path=; use checkpoint="):
        check_additions("evaluate", ["+ckpt_path=x"])
    with pytest.raises(UserError, match=r"evaluate has no setting trainer\.devices="):
        check_additions("evaluate", ["+trainer.devices=1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "3"], r"--epochs: settings have no dashes\. train has no setting epochs=; use trainer\.max_ep"),
        (["--batch-size=8"], r"--batch-size=8: settings have no dashes: batch_size=8\."),
        (["-seed", "1"], r"-seed: settings have no dashes: seed=1\."),
        (["--verbose", "seed=1"], r"--verbose: settings have no dashes: verbose=VALUE\."),
    ],
)
def test_a_setting_with_dashes_is_answered_by_the_setting(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_dashes("train", arguments)


def test_options_of_hydra_keep_their_dashes() -> None:
    check_dashes("train", [])
    check_dashes("train", ["-m", "--cfg", "job", "--resolve", "-cn", "config", "seed=-1", "~callbacks"])


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
        ("train", "optimizer.lr=[1,2]"),
    ],
)
def test_a_word_for_a_number_is_refused(verb: str, override: str) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(override)}: expected a (number|list of numbers), such as"):
        check_types(verb, [override], compose(verb, override))


def test_a_value_of_another_type_is_refused() -> None:
    for override, message in (
        ("model.dropout=0.5", r"expected a list of numbers, such as \[0.5, 0.3\]"),
        ("callbacks.model_summary.max_depth=[1]", "expected a number, such as 2"),
        ("data.fallback.seed=[1]", "expected a number, such as 0"),
        ("verbose=yes please", "expected true or false"),
        ("preflight.run=maybe", "expected true or false"),
        ("channels_last=1", "expected true or false"),
        ("optimizer.nesterov=2.5", "expected true or false"),
    ):
        with pytest.raises(UserError, match=message):
            check_types("train", ["optimizer=sgd", override], compose("train", "optimizer=sgd", override))


@pytest.mark.parametrize(
    "override",
    [
        "trainer.devices=2",
        "trainer.devices=auto",
        "optimizer=sgd",
        "model.dropout=[0,1]",
        "loss.balanced=0.5",
        "compile.cpu=default",
        "tta=none",
    ],
)
def test_a_value_of_another_type_that_is_valid_is_left(override: str) -> None:
    check_types("train", ["model=v4_attention", override], compose("train", "model=v4_attention", override))


def test_an_unknown_key_of_a_config_file_is_answered_by_the_nearest_setting() -> None:
    with pytest.raises(UserError, match=r"optimzer= is not a setting; did you mean optimizer=\?"):
        resolve(compose("train", "+optimzer.lr=1"), Path("run"))
