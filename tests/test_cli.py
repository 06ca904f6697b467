"""The verbs on the command line: messages, exit statuses and folders."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import emotion
from emotion.checkpoints.locate import BEST_CHECKPOINT, LAST_CHECKPOINT
from emotion.cli import check_values, report_errors
from emotion.config import help
from emotion.config.compose import compose
from emotion.errors import UserError
from emotion.io.atomic import write_text
from emotion.train import train
from tests.conftest import options, record_of, representative
from tests.processes import run_verb

SMALL = [
    "model.widths=[8,16]", "model.convs=[1,1]", "model.reduction=4", "model.hidden=8", "input=grey48",
    "compile.cpu=false", "data=synthetic", "data.training=16", "data.public_test=2", "data.private_test=2",
    "batch_size=16", "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=csv",
]  # fmt: skip


MISTAKES = {
    "a mistyped key": (
        ["train", "optimizer.weight_decy=1"],
        "train has no setting optimizer.weight_decy=; did you mean",
    ),
    "an added key": (["train", "+lr=1"], r"train has no setting lr=; use optimizer.lr=\."),
    "a setting with dashes": (["predict", "photo.jpg", "--checkpoint", "fast_cnn"], "no dashes: checkpoint=fast_cnn"),
    "a null group": (["train", "logger=null"], "logger=null: choose one of csv"),
    "an unknown model": (["train", "model=v5"], r"model=v5: model has no v5.* Expected one of .*v4_attention"),
    "a missing source": (["train", "data=fer2013_csv"], r"fer2013.csv does not exist.*data_dir=FOLDER"),
    "a folder that is no run": (["train", "resume=nowhere"], "nowhere is not a run: it has no .hydra/config.yaml"),
    "no checkpoint given": (["publish", "repo=a/b"], "expected one of checkpoint=RUN and folder=FOLDER"),
    "a missing checkpoint": (["evaluate", "checkpoint=nowhere"], "nowhere does not exist; expected a run folder"),
    "a source to prepare that is not there": (["prepare", "data=icml_csv"], "icml_face_data.csv does not exist"),
    "runs to compare that are not there": (["compare", "outputs/nowhere"], "nowhere: expected finished runs.*no such"),
    "nothing to compare": (["compare"], "no run given; expected folders of runs"),
    "results without a README": (["results"], "README.md has no place for a table"),
    "an accelerator that is not there": (["train", *SMALL, "trainer.accelerator=abacus"], "abacus"),
}


@pytest.mark.parametrize(
    "mistake", representative(list(MISTAKES), "a mistyped key", "a setting with dashes", "an unknown model")
)
def test_a_mistake_gives_one_message(mistake: str) -> None:
    (verb, *arguments), message = MISTAKES[mistake]
    done = run_verb(verb, *arguments)
    assert done.status != 0
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) < 30
    assert not list(Path.cwd().rglob("*.ckpt"))


@pytest.mark.parametrize("logger", ["mlflow", "wandb"])
def test_a_missing_logger_names_the_extra(logger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, logger, None)
    message = rf"logger={logger} needs {logger}, which is not installed: pip install 'emotion\[{logger}\]'"
    with pytest.raises(UserError, match=message):
        check_values("train", compose("train", f"logger={logger}"), [f"logger={logger}"])


REFUSED = {
    "votes that do not fit": (
        ["audit", "data=synthetic", "data.training=1", "votes=x.csv"],
        "x.csv does not exist. The votes of FER\\+ .* its location: votes=FILE",
    ),
    "a fault that nothing lists": (["train", *SMALL, "split.exclude_issues=[leak]"], "split.exclude names no file"),
    "a size the network cannot take": (
        ["train", *SMALL, "input.size=2"],
        "V4Attention halves its input 2 times: expected at least 4x4 pixels and 1 channel, found 2x2 pixels",
    ),
    "no teacher given": (
        ["train", "experiment=distill", "data=synthetic"],
        "distillation.teacher is not given; expected a run folder",
    ),
    "an unknown argument": (["train", *SMALL, "+optimizer.nesterov=true"], "refuses its arguments"),
    "a target that is not allowed": (["train", *SMALL, "loss._target_=os.system"], "is not allowed"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_a_verb_refuses_impossible_settings(refused: str) -> None:
    (verb, *arguments), message = REFUSED[refused]
    with pytest.raises(UserError, match=message) as error:
        getattr(import_module(f"emotion.{verb}"), verb)(compose(verb, *arguments), Path("out"))
    assert len(str(error.value).splitlines()) < 30
    assert not list(Path.cwd().rglob("*.ckpt"))


@pytest.mark.parametrize("verb", ["bench", "compare", "evaluate", "results", "runs"])
def test_a_verb_that_loads_torch_says_so(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("emotion.cli.announce_torch", lambda: print("loading libraries ..."))
    monkeypatch.setattr(sys, "argv", [verb, *(["measure=demo", "clients=99"] if verb == "bench" else ["nowhere"])])
    with pytest.raises(SystemExit):
        import_module(f"emotion.{verb}").main()
    assert capsys.readouterr().out.startswith("loading libraries ...\n")


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("train", ["data_dir=nowhere"], "nowhere does not exist. Expected fer2013.csv"),
        ("train", ["data_dir=empty"], "empty is empty. Expected fer2013.csv"),
        ("train", ["data=fer2013_csv", "data_dir=nowhere"], "data_dir=nowhere does not exist"),
        ("evaluate", ["data_dir=nowhere"], "data_dir=nowhere does not exist"),
        ("evaluate", ["data=auto", "data_dir=nowhere"], "nowhere does not exist. Expected fer2013.csv"),
    ],
)
def test_a_missing_data_folder_is_reported_before_libraries_load(
    verb: str,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("empty").mkdir()
    monkeypatch.setattr("emotion.cli.announce_torch", lambda: pytest.fail("libraries are loaded"))
    monkeypatch.setattr(sys, "argv", [verb, *arguments])
    with pytest.raises(SystemExit, match="2"):
        import_module(f"emotion.{verb}").main()
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_folder_in_the_place_of_a_file_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").mkdir()
    with pytest.raises(SystemExit), report_errors("runs"):
        write_text(Path("table.csv"), "a,b")
    assert "cannot write table.csv: is a directory. It is a folder; name a file." in capsys.readouterr().err
    assert list(Path().iterdir()) == [Path("table.csv")]


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user of the process")
@pytest.mark.parametrize("read", [Path.stat, Path.read_text])
def test_a_file_that_may_not_be_read_is_not_called_unwritable(
    read: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("private").mkdir()
    path = Path("private/run")
    path.touch()
    (path.parent if read is Path.stat else path).chmod(0o700)
    os.seteuid(65534)  # nobody
    try:
        with pytest.raises(SystemExit), report_errors("evaluate"):
            read(path)
    finally:
        os.seteuid(0)
    assert "cannot read private/run: permission denied. Check its permissions." in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user of the process")
def test_a_folder_that_may_not_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    os.seteuid(65534)  # nobody
    try:
        with pytest.raises(SystemExit), report_errors("runs"):
            write_text(Path("table.csv"), "a,b")
    finally:
        os.seteuid(0)
    assert "cannot write table.csv: permission denied. Choose a writable folder" in capsys.readouterr().err


def test_a_closed_pipe_gives_no_traceback(fer_csv: Path) -> None:
    command = [sys.executable, "-u", "-m", "emotion.prepare"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stderr
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 128 + signal.SIGPIPE


def test_prepare_train_and_evaluate(fer_csv: Path) -> None:
    prepared = run_verb("prepare")
    assert "NOT the published file" in prepared.out
    trained = run_verb("train", *[o for o in SMALL if not o.startswith("data")], "data=auto", "split=official")
    assert trained.status == 0, trained.err
    assert trained.err == ""
    (run,) = Path("outputs/v4_attention").iterdir()
    assert f"run: {run}" in trained.out
    evaluated = run_verb("evaluate", f"checkpoint={run}", "tta=flip")
    assert evaluated.status == 0, evaluated.err
    record = json.loads((run / "record.json").read_text())
    assert record["command"].startswith("python -m emotion.train 'model.widths=[8,16]'")
    assert (run / "evaluation" / "best_official_test_flip.json").is_file()


@pytest.mark.hard
def test_a_sweep_over_models_has_its_own_folder() -> None:
    few = [*(o for o in SMALL if not o.startswith(("model", "input"))), "trainer.limit_train_batches=1"]
    done = run_verb("train", "-m", *few, "labels=seven", "experiment=simple_cnn,compact_cnn")
    assert done.status == 0, done.err
    records = sorted(path.relative_to("outputs/sweep") for path in Path("outputs").rglob("record.json"))
    assert [path.parts[1] for path in records] == ["experiment=compact_cnn", "experiment=simple_cnn"]
    compared = run_verb("compare", "outputs/sweep", "tta=flip")
    assert compared.status == 0, compared.err
    assert "simple_cnn is " in compared.out
    assert list(Path("outputs/compare").glob("*/comparison.png"))


@pytest.mark.parametrize(
    ("signum", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.hard), (signal.SIGTERM, 143)]
)
def test_a_signal_stops_cleanly_and_the_run_resumes(signum: int, status: int) -> None:
    settings = [*SMALL, "data.training=60", "trainer.max_epochs=40"]
    child = subprocess.Popen(
        [sys.executable, "-m", "emotion.train", *settings],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not list(Path.cwd().rglob(str(LAST_CHECKPOINT))):
        time.sleep(0.05)
        assert child.poll() is None
    child.send_signal(signum)
    _, errors = child.communicate()
    assert child.returncode == status, errors
    (run,) = Path("outputs/v4_attention").iterdir()
    assert f"python -m emotion.train resume={run}" in errors
    refused = run_verb("train", f"resume={run}", "model=v4_attention", "optimizer.lr=1")
    assert "cannot take model=v4_attention optimizer.lr=1; allowed are settings that begin with" in refused.err
    resumed = run_verb("train", f"resume={run}", "trainer.max_epochs=5")
    assert resumed.status == 0, resumed.err
    assert (run / BEST_CHECKPOINT).is_file()
    assert (run / "record.json").is_file()
    assert list(Path("outputs/v4_attention").iterdir()) == [run]


@pytest.mark.parametrize("wrong", ["seed=abc", "optimizer.lr=-1", "model.reduction=0"])
def test_a_refused_command_leaves_no_folder(wrong: str) -> None:
    assert run_verb("train", *SMALL, wrong).status == 2
    assert not list(Path("outputs").glob("*"))


def test_the_wheel_contains_conf_and_runs_from_any_folder(tmp_path: Path, project: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(project)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site")]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    where = "import emotion.cli; print(emotion.cli.__file__, emotion.config.compose.CONF)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", where], capture_output=True, text=True, env=environment, check=True)
    assert all(part.startswith(str(tmp_path / "site")) for part in done.stdout.split())
    ran = subprocess.run(
        [sys.executable, "-m", "emotion.prepare", "data.fallback.training=1"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "SYNTHETIC" in ran.stdout
    assert wheel.stat().st_size < 4_000_000
    assert (tmp_path / "site/emotion/py.typed").is_file()
    picture = str(project / "outputs/records/faces.png")
    code = "import emotion, sys; print(emotion.load().predict(sys.argv[1]).to_dict())"
    done = subprocess.run(
        [sys.executable, "-c", code, picture], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == f"{emotion.load().predict(picture).to_dict()}\n"
    with pytest.raises(UserError, match="reads weights from other files"):  # only the package's own zoo may
        emotion.load(tmp_path / "site/emotion/zoo/fast_cnn.onnx")


def test_help_shows_the_settings_of_the_choices_in_use() -> None:
    """A recipe's values take the place of a group's, and keep its comment."""
    shown = help.verb_help("train").partition("Settings of the choices in use")[2]
    assert re.search(r"^  optimizer.lr=3e-4$", shown, re.MULTILINE)
    assert re.search(r"^  loss.balanced=true +true: class weights N", shown, re.MULTILINE)
    assert shown.count("trainer.max_epochs=") == 1
    assert "_target_" not in shown
    other = help.verb_help("train", ["data=synthetic", "model=fast_cnn"]).partition("Settings of the choices")[2]
    assert re.search(r"^  data.training=300$", other, re.MULTILINE)
    assert re.search(r"^  optimizer.lr=0.04$", other, re.MULTILINE)


def test_help_lists_the_groups() -> None:
    groups = run_verb("train", "--help").out.partition("Config groups")[2]
    losses = sorted(options("loss"), key=lambda name: name != "cross_entropy")  # the default first
    assert re.search(rf"^  loss +{', '.join(losses[:3])}", groups, re.MULTILINE)


@pytest.mark.parametrize("choice", representative(["callbacks=none", "debug=fdr"], "callbacks=none"))
def test_settings_of_other_projects_work(choice: str) -> None:
    small = [override for override in SMALL if choice != "debug=fdr" or override.startswith(("model", "logger"))]
    train(compose("train", *small, choice, "trainer.accelerator=cpu"), Path("run"))
    assert record_of(Path("run")).epochs == 1
