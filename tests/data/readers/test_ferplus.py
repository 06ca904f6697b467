"""FER+: votes become labels and targets, and runs are evaluated against them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from emotion.config.compose import compose
from emotion.data.cache import prepare
from emotion.data.dataloader import RowBatch
from emotion.data.datamodule import EmotionDataModule
from emotion.data.faces import EMOTIONS, MIXED, PRIVATE_TEST, TRAINING, FaceChunk, Faces
from emotion.data.labels import relabel, sample_labels, vote_shares
from emotion.data.readers.ferplus import (
    CLASS_OF_COLUMN,
    CLASSES,
    COLUMN_OF_CLASS,
    HEADER,
    VOTE_COLUMNS,
    check_votes,
    drop_single_votes,
    majority_labels,
    read_votes,
)
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.train import train
from emotion.training.setup import make_data, resolve
from tests.conftest import REAL_DATA, SMALL, csv_lines, made_votes, representative, write_votes

Config = Callable[..., DictConfig]
RUN = Path("run")


def config(*overrides: str) -> DictConfig:
    few = ("split=official", "batch_size=8", "augment=none", "trainer.max_epochs=1")
    return compose("train", *SMALL, "data=ferplus", "labels=seven", *few, *overrides)


def module(*overrides: str) -> EmotionDataModule:
    return make_data(resolve(config(*overrides), RUN))[0]


def faces_of(**settings: object) -> Faces:
    source = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": "data/fer2013.csv"}
    votes = {"_target_": "emotion.data.readers.ferplus.read", "source": source, "votes": "data/ferplus_votes.csv"}
    return prepare(votes | settings, "cache")


@pytest.mark.parametrize(
    ("votes", "label", "most"),
    [
        ([6, 0, 1, 1, 0, 0, 0, 0, 2, 0], "neutral", "neutral"),
        ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], "unknown", "neutral"),  # 4 of the 9 remaining
        ([1, 1, 1, 1, 3, 1, 1, 1, 0, 0], "anger", "anger"),  # the only remaining ones
        ([0, 5, 0, 0, 0, 0, 5, 0, 0, 0], "unknown", "happiness"),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "unknown", "unknown"),
        ([0, 0, 0, 0, 0, 0, 0, 0, 2, 8], "NF", "NF"),
        ([0, 3, 0, 0, 0, 0, 0, 0, 7, 0], "unknown", "unknown"),
    ],
)
def test_the_label_has_more_than_half_of_the_votes_that_are_not_single(votes: list[int], label: str, most: str) -> None:
    kept = drop_single_votes(np.array([votes], np.uint8))
    assert VOTE_COLUMNS[majority_labels(kept, 0.5)[0]] == label
    assert VOTE_COLUMNS[majority_labels(kept, 0)[0]] == most


def test_faces_without_a_majority_for_an_emotion_have_no_class(fer_votes: Path) -> None:
    data = module("labels=ferplus")
    assert data.classes == VOTE_COLUMNS[:8]
    names = [data.faces.classes[label] for label in data.faces.labels]
    assert [(name, names.count(name)) for name in CLASSES[7:]] == [("contempt", 3), ("unknown", 3), ("not a face", 3)]
    assert [len(part) for part in data.split] == [19, 19, 19]
    assert (data.faces.origin == faces_of().origin).all()


def test_schemes_of_fer2013_apply_to_the_majority(fer_votes: Path) -> None:
    seven, other = module(), module("labels=ferplus_seven")
    assert seven.classes == EMOTIONS
    assert other.classes == VOTE_COLUMNS[:7]
    for one, two in zip(seven.split, other.split, strict=True):
        np.testing.assert_array_equal(one, two)
        assert len(one) == 18
    assert module("labels=four").classes == ("happy", "neutral", "sad", "surprise")


def test_shares_count_votes_for_the_schemes_classes_that_are_not_single(fer_votes: Path) -> None:
    data = module("target=distribution")
    row = np.flatnonzero(data.labels == EMOTIONS.index("happy"))[0]
    expected = np.zeros(7)
    expected[[EMOTIONS.index("happy"), EMOTIONS.index("neutral")]] = 7 / 9, 2 / 9
    batch = RowBatch(torch.tensor([row]), seed=0, training=True)
    np.testing.assert_allclose(data.fetch(batch)[1][0], expected, rtol=1e-6)
    assert data.fetch(batch._replace(training=False))[1].tolist() == [EMOTIONS.index("happy")]
    assert data.votes is not None
    assert (data.votes.sum(1) == (data.labels >= 0)).all()
    assert (data.votes.argmax(1) == data.labels)[data.labels >= 0].all()


def test_class_counts_of_soft_and_sampled_targets_are_expected_counts(fer_votes: Path) -> None:
    hard, soft, sampled = (module(f"target={target}") for target in ("majority", "distribution", "sampled"))
    np.testing.assert_array_equal(hard.class_counts, np.bincount(hard.labels[hard.split.train]))
    assert soft.votes is not None
    np.testing.assert_allclose(soft.class_counts, soft.votes[soft.split.train].sum(0), rtol=1e-5)
    np.testing.assert_array_equal(soft.class_counts, sampled.class_counts)
    assert sum(soft.class_counts) == pytest.approx(sum(hard.class_counts))


def test_a_sampled_target_depends_on_seed_epoch_and_row_alone(fer_votes: Path) -> None:
    def targets(data: EmotionDataModule, epoch: int, step: int = 1) -> list[int]:
        loader = data.train_dataloader()
        loader.set_epoch(epoch)
        batch = next(iter(loader))._replace(rows=torch.arange(0, 63, step))
        found: list[int] = data.fetch(batch)[1].tolist()
        return found

    data = module("target=sampled")
    first, second = targets(data, 0), targets(data, 1)
    assert first != second
    assert targets(data, 0) == first
    assert targets(data, 0, step=3) == first[::3]
    assert targets(module("target=sampled", "batch_size=4"), 1) == second
    assert targets(module("target=sampled", "seed=1"), 0) != first


def test_labels_are_sampled_as_often_as_they_were_voted_for() -> None:
    shares = np.array([[0.0, 0.3, 0.0, 0.7, 0.0]], np.float32).repeat(20_000, 0)
    found = np.bincount(sample_labels(shares, 5), minlength=5) / 20_000
    assert found[[0, 2, 4]].tolist() == [0, 0, 0]
    assert found[1] == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("mixup", ["mixup", "either"])
def test_mixup_preserves_the_sum_of_shares(mixup: str, fer_votes: Path) -> None:
    data = module("target=distribution", f"mixup={mixup}")
    batch = next(iter(data.train_dataloader()))
    assert data.votes is not None
    targets = data.fetch(batch)[1].numpy()
    np.testing.assert_allclose(targets.sum(0), data.votes[batch.rows].sum(0), rtol=1e-5, atol=1e-6)
    assert np.abs(targets - data.votes[batch.rows]).max() > 0


def test_faces_of_a_second_source_have_one_hot_shares(fer_votes: Path) -> None:
    data = module("data/mix=synthetic", "data.mix.source.training=9", "data.mix.percent=100", "target=distribution")
    mixed = np.flatnonzero(data.faces.usage == MIXED)
    assert data.votes is not None
    assert (data.votes[mixed].max(1) == 1).all()
    assert (data.votes[mixed].argmax(1) == data.labels[mixed]).all()
    assert len(data.split.train) == 18 + np.isin(data.split.train, mixed).sum() > 18


def test_other_formats_are_matched_by_row_or_by_name(fer_votes: Path, few_faces: FaceChunk) -> None:
    layout = "emotion, Usage, pixels"
    (fer_votes.parent / "icml_face_data.csv").write_text("\n".join(csv_lines(few_faces, layout)) + "\n")
    data = module()
    np.testing.assert_array_equal(module("data@data.source=icml_csv").labels, data.labels)
    for row, name in enumerate(read_votes(fer_votes).names):
        part = "train" if few_faces.usage[row] == TRAINING else "test"
        folder = fer_votes.parent / part / EMOTIONS[few_faces.labels[row]]
        folder.mkdir(parents=True, exist_ok=True)
        if name:
            Image.fromarray(few_faces.images[row]).save(folder / name)
    named = module("data@data.source=image_folder")  # whose test set is not divided
    assert [len(part) for part in named.split] == [18, 18, 18]
    ours = {data.faces.images[row].tobytes(): data.labels[row] for row in data.split.test}
    theirs = {named.faces.images[row].tobytes(): named.labels[row] for row in named.split.test}
    assert ours == theirs


def test_votes_belong_to_the_rows_of_every_chunk(fer_votes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = faces_of()
    monkeypatch.setattr("emotion.data.readers.fer2013.CHUNK", 10)
    votes = np.array(read_votes(fer_votes).votes)[:, COLUMN_OF_CLASS]
    chunked = prepare(
        {"_target_": "emotion.data.readers.ferplus.read", "votes": "data/ferplus_votes.csv",
         "source": {"_target_": "emotion.data.readers.fer2013.read_csv", "path": "data/fer2013.csv"}}, "other cache"
    )  # fmt: skip
    for faces in (whole, chunked):
        np.testing.assert_array_equal(faces.votes, np.where(votes > 1, votes, 0))
        np.testing.assert_array_equal(faces.labels, whole.labels)
        np.testing.assert_array_equal(faces.images, whole.images)


def test_faces_that_cannot_be_matched_are_refused(fer_votes: Path, few_faces: FaceChunk, fer_folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"angry/\S+ has usage PrivateTest, but row 21 of .* has usage PublicTest; expected"
    ):
        module("data@data.source=image_folder")  # Kaggle's names do not contain the row
    votes = made_votes(few_faces)
    write_votes(fer_votes, votes[:-1], few_faces.usage[:-1])
    with pytest.raises(
        UserError, match=r"row 62 has no row in .*ferplus_votes.csv, of 62 rows; expected all of FER2013"
    ):
        module()
    write_votes(fer_votes, np.concatenate([votes, votes[-1:]]), np.append(few_faces.usage, PRIVATE_TEST))
    with pytest.raises(UserError, match=r"has 63 faces but .*ferplus_votes.csv has 64 rows; expected all of FER2013"):
        module()
    write_votes(fer_votes, votes, few_faces.usage[::-1])
    with pytest.raises(
        UserError, match=r"row 0 has usage Training, but row 0 of .* has usage PrivateTest; expected all of"
    ):
        module()


def test_rows_without_text_are_skipped(fer_votes: Path) -> None:
    before = read_votes(fer_votes)
    fer_votes.write_text(f"{fer_votes.read_text()}\n \n{',' * 11}\n,,\n")
    assert read_votes(fer_votes).names == before.names


def test_the_case_of_the_header_does_not_matter(fer_votes: Path, few_faces: FaceChunk) -> None:
    before = read_votes(fer_votes)
    write_votes(fer_votes, before.votes, before.usage, "usage,image name,Neutral,HAPPINESS," + ",".join(HEADER[4:]))
    np.testing.assert_array_equal(read_votes(fer_votes).votes, before.votes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "emotion,pixels,Usage\n",
            r"begins with 'emotion,pixels,Usage'; expected the columns Usage,Image name,neutral",
        ),
        ("", r"begins with ''; expected the columns"),
        (",".join(HEADER) + "\n", r"has a header and no rows"),
        (",".join(HEADER) + "\nTraining,x.png,1,2\n", r"row 0 \(line 2\): found 4 columns, expected 12"),
        (",".join(HEADER) + "\nTrain,x.png" + ",1" * 10 + "\n", r"found usage 'Train', expected Training, Public"),
        (",".join(HEADER) + "\nTest,x.png" + ",1" * 10 + "\n", r"found usage 'Test', expected Training, Public"),
        (",".join(HEADER) + "\nTraining,x.png,256" + ",1" * 9 + "\n", r"found '256' among the votes"),
        (
            ",".join(HEADER) + "\nTraining,x.png,-1" + ",1" * 9 + "\n",
            r"found '-1' among the votes, expected non-negative",
        ),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_votes(path)


def test_the_message_for_a_missing_file_says_where_it_is_published(fer_csv: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist.*search 'FERPlus fer2013new.csv'.*data.votes=FILE"):
        module()


@pytest.mark.parametrize("name", ["agreement", "training_agreement"])
@pytest.mark.parametrize("agreement", ["1", "-0.1", "half"])
def test_an_invalid_agreement_is_refused(name: str, agreement: str, fer_votes: Path) -> None:
    with pytest.raises(UserError, match=rf"data.{name}={agreement}: expected a share"):
        module(f"data.{name}={agreement}")


def test_training_alone_learns_from_undecided_votes(fer_votes: Path) -> None:
    decided, most = faces_of(), faces_of(agreement=0)
    assert (decided.labels != most.labels)[decided.usage == TRAINING].any()
    assert (decided.labels != most.labels)[decided.usage != TRAINING].any()
    labels = faces_of(training_agreement=0).labels
    assert (labels == np.where(decided.usage == TRAINING, most.labels, decided.labels)).all()
    assert module("data.agreement=0.7").hparams["source"]["training_agreement"] == 0.7


def test_targets_that_the_data_does_not_have_are_refused(fer_votes: Path) -> None:
    with pytest.raises(UserError, match=r"target=soft: expected majority, distribution, sampled"):
        module("target=soft")
    with pytest.raises(UserError, match=r"target=sampled needs annotators' votes.*Use data=ferplus"):
        make_data(resolve(compose("train", *SMALL, "target=sampled", "data=fer2013_csv", "labels=seven"), RUN))


def test_the_digest_covers_faces_votes_and_agreement_but_not_locations(fer_votes: Path) -> None:
    first = faces_of()
    assert (first.digest, first.votes.shape if first.votes is not None else None) == (faces_of().digest, (63, 10))
    plain = {"_target_": "emotion.data.readers.fer2013.read_csv", "path": fer_votes.with_name("fer2013.csv")}
    assert first.components[0].digest == prepare(plain, "cache").digest
    assert faces_of(agreement=0).digest != first.digest
    moved = fer_votes.rename(fer_votes.with_name("fer2013new.csv"))
    assert faces_of(votes=str(moved)).digest == first.digest
    moved.write_text(moved.read_text().replace("7", "8"))
    assert faces_of(votes=str(moved)).digest != first.digest


def test_a_plain_source_has_no_votes(fer_csv: Path) -> None:
    assert prepare({"_target_": "emotion.data.readers.fer2013.read_csv", "path": str(fer_csv)}, "cache").votes is None


@pytest.mark.parametrize("target", representative(["distribution", "sampled"], "sampled"))
def test_a_run_on_votes_is_evaluated_against_them(target: str, fer_votes: Path) -> None:
    cfg = config("labels=ferplus", f"target={target}", "loss.balanced=true")
    train(cfg, RUN)
    record = json.loads((RUN / "record.json").read_text())
    scores = record["scores"]["test"]["none"]
    assert scores["all"]["n"] == 19
    mean, lower, upper = scores["all"]["votes"]["cross_entropy"]
    assert max(lower, scores["all"]["votes"]["entropy"][0]) < mean < upper
    assert record["config"]["target"] == target
    found = evaluate(compose("evaluate", f"checkpoint={RUN}", "accelerator=cpu"))
    assert found["all"] == scores["all"]


def test_a_run_on_fer2013s_labels_is_evaluated_against_the_votes(
    fer_votes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(compose("train", *SMALL, "data=fer2013_csv", "labels=seven", "split=official", "trainer.max_epochs=1"), RUN)
    assert "votes" not in json.loads((RUN / "record.json").read_text())["scores"]["test"]["none"]["all"]
    assert "annotators" not in capsys.readouterr().out
    arguments = ("evaluate", f"checkpoint={RUN}", "data=ferplus", "accelerator=cpu", "verbose=true")
    found = evaluate(compose(*arguments))
    assert (found["all"]["n"], found["deduplicated"]["n"]) == (18, 18)
    assert "cross_entropy" in found["deduplicated"]["votes"]
    output = capsys.readouterr().out
    assert "annotators' votes" in output
    assert "unknown" not in output  # the training rows are known: the faces are the same
    assert evaluate(compose(*arguments, "subset=train"))["deduplicated"]["n"] == 0


def test_votes_in_another_order_are_refused(fer_votes: Path, fer_csv: Path) -> None:
    """Within each usage, so that usages still match: by reader, evaluate and audit."""
    header, *rows = fer_csv.read_text().splitlines()
    order = np.random.default_rng(0).permutation(len(rows))
    fer_csv.write_text("\n".join([header, *sorted((rows[i] for i in order), key=lambda row: row.split(",")[2])]) + "\n")
    lines = fer_votes.read_text().splitlines()
    fer_votes.write_text("\n".join([lines[0], *sorted(lines[1:], key=lambda row: row.split(",")[0])]) + "\n")
    message = r"does not match data/fer2013.csv: from row \d+ to \d+, \d+ % of the votes agree"
    with pytest.raises(UserError, match=message):
        faces_of()
    plain = prepare({"_target_": "emotion.data.readers.fer2013.read_csv", "path": "data/fer2013.csv"}, "cache")
    with pytest.raises(UserError, match=message):
        check_votes(fer_votes, read_votes(fer_votes), plain)


@pytest.mark.fer2013
def test_fer_plus_on_the_published_file(fer2013: Path, fer2013_faces: Faces) -> None:
    file = Path(REAL_DATA).absolute() / "ferplus_votes.csv"
    if not file.is_file():
        pytest.skip(f"needs FER+'s fer2013new.csv as {file}")
    table = read_votes(file)
    check_votes(file, table, fer2013_faces)
    one_off = np.array(fer2013_faces.labels)
    one_off[20_000:28_000] = one_off[19_999:27_999]
    with pytest.raises(UserError, match=r"from row (19|20)\d+ to .* % of the votes agree with the labels"):
        check_votes(file, table, replace(fer2013_faces, labels=one_off))
    votes = drop_single_votes(table.votes)
    faces, most = (
        replace(fer2013_faces, classes=CLASSES, labels=CLASS_OF_COLUMN[majority_labels(votes, agreement)])
        for agreement in (0.5, 0)
    )
    assert faces.counts().sum(0).tolist() == [2660, 161, 677, 9045, 3749, 3960, 11012, 148, 4299, 176]
    assert faces.counts()[:3, :8].sum(1).tolist() == [25060, 3199, 3153]
    assert most.counts()[TRAINING, :8].sum() - faces.counts()[TRAINING, :8].sum() == 3_329
    assert most.counts().sum(0).tolist() == [3111, 248, 819, 9355, 4371, 4462, 12906, 216, 222, 177]
    scheme = {name: [name] for name in CLASSES[:8]}
    most = replace(most, votes=votes[:, COLUMN_OF_CLASS])
    shares = vote_shares(most, relabel(most.labels, most.classes, scheme), scheme)
    assert shares is not None
    assert shares.any(1).sum() == 35_488
