import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from emotion.metrics.classification import EpochScores, class_scores, confusion_matrix, hard_labels

generator = torch.Generator().manual_seed(0)
TARGETS = torch.randint(5, (300,), generator=generator)
LOGITS = torch.randn(300, 5, generator=generator) + 2 * torch.nn.functional.one_hot(TARGETS, 5)
PREDICTED = LOGITS.argmax(1)


def test_confusion_matrix_by_hand() -> None:
    matrix = confusion_matrix(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_scores_match_torchmetrics() -> None:
    scores = class_scores(confusion_matrix(TARGETS, PREDICTED, 5))
    for found, function, average in (
        (scores.accuracy, multiclass_accuracy, "micro"),
        (scores.macro_f1, multiclass_f1_score, "macro"),
        (scores.precision, multiclass_precision, "none"),
        (scores.recall, multiclass_recall, "none"),
        (scores.f1, multiclass_f1_score, "none"),
    ):
        assert found.float().allclose(function(PREDICTED, TARGETS, 5, average=average))


def test_macro_f1_ignores_classes_that_do_not_occur() -> None:
    matrix = torch.tensor([[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    assert class_scores(matrix).macro_f1 == 1
    assert class_scores(matrix).f1.tolist() == [1, 1, 0]
    predicted_only = class_scores(torch.tensor([[4, 1], [0, 0]]))  # recall 4 / 5; the second class is an error
    assert predicted_only.f1.tolist() == pytest.approx([8 / 9, 0])
    assert predicted_only.macro_f1.item() == pytest.approx(4 / 9)
    assert [score.sum().item() for score in class_scores(torch.zeros(2, 2))] == [0] * 5


def test_a_batch_of_matrices_is_scored_one_by_one() -> None:
    matrices = torch.randint(1, 9, (4, 3, 3), generator=generator)
    together = class_scores(matrices)
    for index, matrix in enumerate(matrices):
        assert class_scores(matrix).macro_f1 == together.macro_f1[index]


def test_epoch_scores_equal_those_of_one_large_batch() -> None:
    scores = EpochScores(5)
    for part in torch.arange(300).split(77):
        loss = torch.nn.functional.cross_entropy(LOGITS[part], TARGETS[part])
        scores.update(loss, LOGITS[part], TARGETS[part])
    whole = class_scores(confusion_matrix(TARGETS, PREDICTED, 5))
    metrics = scores.compute()
    assert metrics["loss"].allclose(torch.nn.functional.cross_entropy(LOGITS, TARGETS))
    assert (metrics["acc"], metrics["macro_f1"]) == (whole.accuracy.float(), whole.macro_f1.float())


def test_soft_targets_count_as_their_most_probable_class() -> None:
    assert hard_labels(TARGETS) is TARGETS
    soft = torch.nn.functional.one_hot(TARGETS, 5) * 0.6 + 0.08
    assert hard_labels(soft).equal(TARGETS)
    one, other = EpochScores(5), EpochScores(5)
    one.update(torch.tensor(1.0), LOGITS, TARGETS)
    other.update(torch.tensor(1.0), LOGITS, soft)
    assert other.compute() == one.compute()


def test_restored_state_continues_the_epoch() -> None:
    one, other = EpochScores(5), EpochScores(5)
    one.update(torch.tensor(1.0), LOGITS[:9], TARGETS[:9])
    sums = one.sums()
    other.restore(sums)
    assert other.compute() == one.compute()
    for scores in (one, other):
        scores.update(torch.tensor(3.0), LOGITS[9:30], TARGETS[9:30])
        assert scores.compute()["loss"].item() == pytest.approx((9 * 1 + 21 * 3) / 30)
    assert sums["faces"] == 9
