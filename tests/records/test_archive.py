"""The records behind the README's tables: whole, of this machine's folders silent, and true to the data."""

import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from emotion.config.compose import compose
from emotion.evaluation.score import stand_in
from emotion.records import run_record
from emotion.records.archive import experiment
from emotion.training.setup import make_data
from tests.conftest import ROOT

KEPT = run_record.find([str(ROOT / "outputs" / "records")])
NAMES = run_record.names(KEPT)


@pytest.mark.parametrize("run", KEPT, ids=NAMES)
def test_a_kept_run_is_its_experiment_as_it_stands(run: run_record.Run) -> None:
    config = run.record["config"]
    assert run_record.differing(config, experiment(config["name"])) == []
    assert run.folder.parts[-2:] == (config["name"], f"seed={config['seed']}")
    assert not re.findall(r'"(?:/|~|[A-Z]:)[^"]*"', (run.folder / "record.json").read_text())


@pytest.mark.parametrize("run", KEPT, ids=NAMES)
def test_a_kept_runs_predictions_are_those_that_it_was_scored_by(run: run_record.Run) -> None:
    for tta, scores in run.record["scores"]["test"].items():
        found = run_record.read_predictions(run, tta)
        for rows, part in (("all", found), ("clean", found.of(found.clean))):
            confusion = np.zeros_like(np.array(scores[rows]["confusion"]))
            np.add.at(confusion, (part.labels, part.predicted), 1)
            assert confusion.tolist() == scores[rows]["confusion"]


@pytest.mark.fer2013
@pytest.mark.parametrize("run", KEPT, ids=NAMES)
def test_a_kept_run_judged_the_test_faces_of_fer2013(run: run_record.Run, fer2013: Path) -> None:
    cfg = compose("train", f"experiment={run.record['config']['name']}", f"data_dir={fer2013.parent}", "run_dir=x")
    data, source = make_data(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    found = run_record.read_predictions(run, "none")
    assert source["digest"] == run.record["data"]["digest"]
    assert found.rows.tolist() == data.split.test.tolist()
    assert found.labels.tolist() == data.labels[data.split.test].tolist()
    assert (~found.clean).tolist() == stand_in(data.faces.images, data.split.test, data.split.train).tolist()
