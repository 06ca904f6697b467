"""The archived records behind the README's tables are complete, unchanged experiments, without absolute paths."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion.config.compose import compose
from emotion.config.instantiate import check_targets
from emotion.evaluation.score import accuracy_and_f1, duplicated_in
from emotion.records.archive import experiment
from emotion.records.predictions import read_predictions
from emotion.records.recipe import recipe_differences
from emotion.records.run_folder import Run, display_names, find_finished
from emotion.training.config import TrainConfig
from emotion.training.setup import make_data, resolve
from tests.conftest import ROOT

RUNS = find_finished([str(ROOT / "outputs" / "records")])
NAMES = display_names(RUNS)


@pytest.mark.parametrize("run", RUNS, ids=NAMES)
def test_an_archived_run_is_its_experiment(run: Run) -> None:
    record = run.record
    assert recipe_differences(record.config, experiment(record.name)) == []
    assert run.folder.parts[-2:] == (record.name, f"seed={record.seed}")
    assert not re.findall(r'"(?:/|~|[A-Z]:)[^"]*"', (run.folder / "record.json").read_text())
    check_targets(record.config)
    assert TrainConfig.from_dict(record.config).name == record.name


@pytest.mark.parametrize("run", RUNS, ids=NAMES)
def test_an_archived_record_has_the_scores_of_its_predictions(run: Run) -> None:
    for tta, scores in run.record.test_scores.items():
        predictions = read_predictions(run, tta)
        deduplicated = predictions.select(predictions.deduplicated)
        for rows, part in (("all", predictions), ("deduplicated", deduplicated)):
            confusion = np.zeros_like(np.array(scores[rows]["confusion"]))
            np.add.at(confusion, (part.labels, part.predicted), 1)
            assert confusion.tolist() == scores[rows]["confusion"]
            labels, predicted = (torch.from_numpy(column.astype(np.int64)) for column in (part.labels, part.predicted))
            for name, interval in accuracy_and_f1(predicted, labels, len(confusion)).items():
                assert scores[rows][name] == pytest.approx(interval), "evaluate would show another interval"


@pytest.mark.fer2013
@pytest.mark.parametrize("run", RUNS, ids=NAMES)
def test_archived_predictions_are_of_the_test_faces_of_fer2013(run: Run, fer2013: Path) -> None:
    cfg = compose("train", f"experiment={run.record.name}", f"data_dir={fer2013.parent}")
    data, source = make_data(resolve(cfg, Path("x")))
    predictions = read_predictions(run, "none")
    assert source["digest"] == run.record.data["digest"]
    assert predictions.rows.tolist() == data.split.test.tolist()
    assert predictions.labels.tolist() == data.labels[data.split.test].tolist()
    duplicated = duplicated_in(data.faces.images, data.split.test, data.split.train)
    assert (~predictions.deduplicated).tolist() == duplicated.tolist()
