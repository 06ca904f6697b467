"""The records behind the README's tables: whole, of this machine's folders silent, and true to the data."""

import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from emotion import run_records
from emotion.assembly import make_data
from emotion.cli import compose
from emotion.evaluation import stand_in
from emotion.kept_runs import experiment
from tests.conftest import ROOT

KEPT = run_records.find([str(ROOT / "outputs" / "records")])
NAMES = run_records.names(KEPT)


@pytest.mark.parametrize("run", KEPT, ids=NAMES)
def test_a_kept_run_is_its_experiment_as_it_stands(run: run_records.Run) -> None:
    config = run.record["config"]
    assert run_records.differing(config, experiment(config["name"])) == []
    assert run.folder.parts[-2:] == (config["name"], f"seed={config['seed']}")
    assert not re.findall(r'"(?:/|~|[A-Z]:)[^"]*"', (run.folder / "record.json").read_text())


@pytest.mark.parametrize("run", KEPT, ids=NAMES)
def test_a_kept_runs_predictions_are_those_that_it_was_scored_by(run: run_records.Run) -> None:
    for views, scores in run.record["scores"]["test"].items():
        found = run_records.read_predictions(run, views)
        for rows, part in (("all", found), ("clean", found.of(found.clean))):
            confusion = np.zeros_like(np.array(scores[rows]["confusion"]))
            np.add.at(confusion, (part.labels, part.predicted), 1)
            assert confusion.tolist() == scores[rows]["confusion"]


@pytest.mark.fer2013
@pytest.mark.parametrize("run", KEPT, ids=NAMES)
def test_a_kept_run_judged_the_test_faces_of_fer2013(run: run_records.Run, fer2013: Path) -> None:
    cfg = compose("train", f"experiment={run.record['config']['name']}", f"data_dir={fer2013.parent}", "run_dir=x")
    data, source = make_data(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    found = run_records.read_predictions(run, "none")
    assert source["digest"] == run.record["data"]["digest"]
    assert found.rows.tolist() == data.split.test.tolist()
    assert found.labels.tolist() == data.labels[data.split.test].tolist()
    assert (~found.clean).tolist() == stand_in(data.faces.images, data.split.test, data.split.train).tolist()
