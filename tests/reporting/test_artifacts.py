from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from emotion.evaluation.score import EvaluationResult, score
from emotion.reporting import artifacts, figures

CLASSES = ("a", "b", "c")


def make_result(labels: np.ndarray, probabilities: torch.Tensor) -> EvaluationResult:
    scores, rows = {"all": score(probabilities, labels, CLASSES)}, 100 + np.arange(len(labels))
    predicted = probabilities.argmax(-1).numpy()
    return EvaluationResult(scores, rows, labels, predicted, np.ones(len(labels), bool), probabilities, None)


def test_the_most_confident_mistakes_are_shown_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    confidence = torch.linspace(0.51, 0.99, 50)
    probabilities = torch.stack([1 - confidence, confidence, torch.zeros(50)], 1)
    probabilities[:10] = torch.tensor([1.0, 0.0, 0.0])  # ten correct ones, more confident than any mistake
    images = np.arange(150, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    shown: dict[str, object] = {}

    def faces(images: np.ndarray, captions: list[str], correct: list[bool], title: str) -> Figure:
        shown.update(images=images, captions=captions, correct=correct, title=title)
        return Figure()

    monkeypatch.setattr(figures, "faces", faces)
    result = make_result(np.zeros(50, np.int64), probabilities)
    artifacts.save_figures(tmp_path, "test", result, images, CLASSES, "")
    assert [image[0, 0] for image in shown["images"]] == list(range(149, 117, -1))  # type: ignore[attr-defined]
    assert shown["captions"][0] == "a → b\n99.0 %, row 149"  # type: ignore[index]
    assert not any(shown["correct"])  # type: ignore[call-overload]
    assert "the 32 most confident of 40 mistakes" in str(shown["title"])


def test_without_mistakes_there_is_no_sheet(tmp_path: Path) -> None:
    (tmp_path / "test_mistakes.png").touch()  # of a previous evaluation
    labels = np.arange(30) % 3
    result = make_result(labels, torch.nn.functional.one_hot(torch.from_numpy(labels), 3).float())
    written = artifacts.save_figures(tmp_path, "test", result, np.zeros((130, 8, 8), np.uint8), CLASSES, "")
    assert [path.name for path in written] == [path.name for path in tmp_path.iterdir()] == ["test_reliability.png"]
