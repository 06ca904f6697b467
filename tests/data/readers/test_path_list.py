"""Images and labels of CSV files are read; all invalid rows are reported at once."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.checkpoints.load import load_checkpoint
from emotion.config.compose import compose
from emotion.data.cache import prepare
from emotion.data.faces import EMOTIONS, ORIGIN_BYTES, PRIVATE_TEST, PUBLIC_TEST, TRAINING, FaceChunk, Faces
from emotion.data.readers.path_list import read
from emotion.errors import UserError
from emotion.evaluate import evaluate
from emotion.records.predictions import read_predictions
from emotion.records.run_folder import find_finished
from emotion.train import train
from emotion.training.setup import make_data, resolve
from tests.conftest import SMALL, representative
from tests.data.readers.test_fer2013 import all_rows

LISTS = ("train", "val", "test")
RUN = Path("run")


def write(name: str, *rows: tuple[object, object], header: str = "path,label") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("\n".join([header, *(f"{path},{label}" for path, label in rows)]) + "\n", encoding="utf-8")
    return name


def image(name: str, shade: int = 0) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (9, 7), shade).save(name)
    return name


@pytest.fixture
def lists(few_faces: FaceChunk) -> list[str]:
    """The synthetic faces as files in data/images, listed in data/train.csv, val.csv and test.csv."""
    rows: list[list[tuple[object, object]]] = [[], [], []]
    for index, (pixels, label, usage, _) in enumerate(zip(*few_faces[:4], strict=True)):
        name = f"images/{index}.png"
        Path("data/images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(f"data/{name}")
        rows[usage].append((name, EMOTIONS[label]))
    return [write(f"data/{part}.csv", *some) for part, some in zip(LISTS, rows, strict=True)]


def test_listed_faces_equal_the_written_ones(lists: list[str], few_faces: FaceChunk) -> None:
    source = read(*lists, size=48, channels=1)
    found = all_rows(source)
    np.testing.assert_array_equal(found.images, few_faces.images)
    np.testing.assert_array_equal(found.usage, few_faces.usage)
    names = [source.classes[label] for label in found.labels]
    assert names == [EMOTIONS[label] for label in few_faces.labels]
    assert list(source.classes) == sorted(EMOTIONS)
    assert found.origin[0] == "train.csv line 2: images/0.png"


def test_rows_without_text_are_skipped(lists: list[str], few_faces: FaceChunk) -> None:
    path = Path(lists[0])
    header, first, *others = path.read_text().splitlines()
    path.write_text("\n".join([header, "", " ", first, ",", *others, " , ", ",,", '"",""', ""]))
    found = all_rows(read(*lists, size=48, channels=1))
    np.testing.assert_array_equal(found.images, few_faces.images)
    assert found.origin[0] == "train.csv line 4: images/0.png"


def test_parts_may_be_missing(lists: list[str]) -> None:
    assert set(all_rows(read(lists[0], test=lists[2])).usage) == {TRAINING, PRIVATE_TEST}
    assert set(all_rows(read(lists[0], lists[1])).usage) == {TRAINING, PUBLIC_TEST}


def test_a_list_of_test_images_alone_is_read(lists: list[str], few_faces: FaceChunk) -> None:
    source = read(test=lists[2], size=48, channels=1)
    found = all_rows(source)
    np.testing.assert_array_equal(found.images, few_faces.images[few_faces.usage == PRIVATE_TEST])
    assert (source.name, set(found.usage)) == (lists[2], {PRIVATE_TEST})
    with pytest.raises(UserError, match=r"data.train, data.val and data.test are null; expected at least one"):
        read()


def test_spellings_of_a_name_are_one_class_and_stated() -> None:
    names = ("Happy", "happy", "Happiness", "Cat", "cat", "Dog")
    source = read(write("t.csv", *((image(f"{i}.png"), name) for i, name in enumerate(names))), size=4)
    assert list(source.classes) == ["Dog", "cat", "happy"]
    assert all_rows(source).labels.tolist() == [2, 2, 2, 1, 1, 0]
    assert list(source.notes) == ["labels Happy, happy, Happiness: read as happy", "labels Cat, cat: read as cat"]


def test_labels_match_a_map_in_any_spelling() -> None:
    Path("label_map.json").write_text('{"Happy": 0, "sad": 1}')
    source = read(write("t.csv", *((image("a.png"), label) for label in ("happiness", "SAD", "1", "Happy"))), size=4)
    assert all_rows(source).labels.tolist() == [0, 1, 1, 0]


def test_columns_may_be_in_any_order_among_others() -> None:
    image("a,b.png")
    Path("t.csv").write_text('\ufeffid,Label,note,path\r\n\r\n7,happy,x,"a,b.png"\r\n', encoding="utf-8")
    source = read("t.csv", size=4)
    assert (list(source.classes), all_rows(source).images.shape) == (["happy"], (1, 4, 4, 3))


@pytest.mark.parametrize("labels", [("angry", "sad"), ("0", "1"), ("angry", "1")])
def test_a_label_is_a_name_or_an_index(labels: tuple[str, str]) -> None:
    Path("map.json").write_text(json.dumps({"sad": 1, "angry": 0}))
    source = read(write("t.csv", *((image("a.png"), label) for label in labels)), label_map="map.json", size=4)
    assert list(source.classes) == ["angry", "sad"]
    assert all_rows(source).labels.tolist() == [0, 1]


def test_a_map_beside_the_list_is_found() -> None:
    image("d/a.png")
    write("d/t.csv", ("a.png", "sad"))
    Path("d/label_map.json").write_text('{"happy": 0, "sad": 1}')
    assert list(read("d/t.csv").classes) == ["happy", "sad"]


def test_numeric_labels_without_a_map_are_sorted_by_value() -> None:
    source = read(write("t.csv", *((image("a.png"), label) for label in (10, 9, 2, 10))), size=4)
    assert list(source.classes) == ["2", "9", "10"]
    assert all_rows(source).labels.tolist() == [2, 1, 0, 2]


def test_a_path_is_absolute_or_relative_to_the_list_or_the_root() -> None:
    here, absolute = image("l/beside.png", 10), Path(image("else/absolute.png", 20)).absolute()
    image("root/below.png", 30)
    image("root/beside.png", 40)
    rows = [("beside.png", 0), (absolute, 0), ("below.png", 0)]
    found = all_rows(read(write("l/t.csv", *rows), root="root", size=4, channels=1))
    assert Path(here).is_file()
    assert found.images[:, 0, 0].tolist() == [10, 20, 30]


def test_all_invalid_rows_are_listed_at_once() -> None:
    image("a.png")
    Path("label_map.json").write_text('{"happy": 0, "sad": 1}')
    write("v.csv", ("a.png", "2"), ("no.png", "bored"))
    Path("t.csv").write_text("path,label\na.png,happy\ngone.png,sad\na.png,\n,sad\na.png\n")
    with pytest.raises(UserError) as refused:
        read("t.csv", "v.csv")
    assert str(refused.value).splitlines() == [
        "6 rows of t.csv, v.csv cannot be used; expected the path of an image (absolute, or relative to the CSV file "
        "or to data.root=FOLDER) and a label of happy, sad or its index:",
        "  t.csv line 3: gone.png does not exist",
        "  t.csv line 4: label ''",
        "  t.csv line 5: no path",
        "  t.csv line 6: 1 column, but the header has 2",
        "  v.csv line 2: label '2'",
        "  v.csv line 3: label 'bored', no.png does not exist",
    ]


def test_at_most_twenty_rows_are_listed() -> None:
    with pytest.raises(UserError, match=r"(?s)^50 rows of .*line 21: 19.png does not exist\n  and 30 more$"):
        read(write("t.csv", *((f"{i}.png", "sad") for i in range(50))))


def test_unreadable_images_are_all_listed_with_their_rows() -> None:
    image("a.png")
    for name in ("b.png", "c.jpg"):
        Path(name).write_text("no image")
    with pytest.raises(UserError, match=r"(?s)2 of 3 images in t.csv.*t.csv line 2: b.png: .*t.csv line 4: c.jpg: "):
        all_rows(read(write("t.csv", ("b.png", 0), ("a.png", 0), ("c.jpg", 0))))


REFUSED = {
    "": r"begins with 'an empty line'; expected a header with the columns path and label",
    "path,label\n": "has a header and no rows",
    "image,label\na.png,1\n": "begins with 'image,label'; expected a header",
    "path,path,label\na.png,a.png,1\n": "begins with 'path,path,label'",
    'path,label\n"a.png,1\n' + "x" * 140_000: "field larger than field limit",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_other_files_are_refused(text: str) -> None:
    image("a.png")
    Path("t.csv").write_text(text)
    with pytest.raises(UserError, match=f"^t.csv.*{REFUSED[text]}"):
        read("t.csv")


def test_text_that_is_not_utf_8_is_refused() -> None:
    Path("t.csv").write_bytes("path,label\nä.png,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"t.csv is not UTF-8"):
        read("t.csv")


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2}', '{"a": 0, "b": 0}', '{"a": true}', '{"a": "0"}', "[]", "{}", "x"])
def test_a_map_with_other_indices_is_refused(text: str) -> None:
    Path("label_map.json").write_text(text)
    with pytest.raises(UserError, match=r'label_map.json .*expected \{"angry": 0, ...\} with the indices 0, 1'):
        read(write("t.csv", (image("a.png"), "a")))


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"256 classes, 0, 1, 2.*expected at most 255"):
        read(write("t.csv", *((image("a.png"), label) for label in range(256))))
    assert len(read(write("t.csv", *(("a.png", label) for label in range(255)))).classes) == 255


def test_the_message_for_a_missing_list_says_what_to_set(lists: list[str]) -> None:
    Path("data/val.csv").unlink()
    with pytest.raises(UserError, match=r"val.csv does not exist; .*data.val=FILE \(or data.val=null for none\)"):
        make_data(resolve(compose("train", "data=path_list"), Path("run")))
    with pytest.raises(
        UserError, match=r"none.csv .*data.train=FILE \(or data.train=null for none, data.mix.source.train=FILE for"
    ):
        read("none.csv")


@pytest.mark.parametrize("wrong", [{"size": 0}, {"channels": 2}, {"root": "nowhere"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object], lists: list[str]) -> None:
    with pytest.raises(UserError, match=r"expected"):
        read(lists[0], **wrong)  # type: ignore[arg-type]


def test_a_long_origin_keeps_its_line_and_its_end() -> None:
    name = image(f"{'ä' * 60}/{'b' * 50}.png")
    (origin,) = all_rows(read(write("t.csv", (name, 0)), size=4)).origin
    assert len(origin.encode()) <= ORIGIN_BYTES
    assert origin.startswith("t.csv line 2: ")
    assert origin.endswith("b.png")


def prepared(*lists: str, **settings: object) -> Faces:
    given = dict(zip(LISTS, lists, strict=False)) | settings
    return prepare({"_target_": "emotion.data.readers.path_list.read", "size": 4, **given}, "cache")


def test_the_digest_covers_lists_map_and_images_but_not_locations(lists: list[str]) -> None:
    first = prepared(*lists)
    Path("data").rename("moved")
    moved = [name.replace("data", "moved") for name in lists]
    assert prepared(*moved).digest == first.digest
    assert len(list(Path("cache").glob("*/meta.json"))) == 1
    seen = {first.digest, prepared(moved[0], moved[2], moved[1]).digest, prepared(*moved[:2]).digest}
    Image.new("L", (48, 48)).save("moved/images/3.png")
    seen.add(prepared(*moved).digest)
    Path(moved[0]).write_text(Path(moved[0]).read_text().replace("0.png,", "1.png,"))
    seen.add(prepared(*moved).digest)
    Path("moved/label_map.json").write_text(json.dumps({name: i for i, name in enumerate(EMOTIONS)}))
    relabeled = prepared(*moved)
    assert len(seen | {relabeled.digest}) == 6
    assert relabeled.classes == EMOTIONS


def test_the_same_list_in_another_part_is_another_source(lists: list[str]) -> None:
    as_val, as_test = prepared(lists[0], lists[1]), prepared(lists[0], test=lists[1])
    assert (set(as_val.usage), set(as_test.usage)) == ({TRAINING, PUBLIC_TEST}, {TRAINING, PRIVATE_TEST})
    assert as_val.digest != as_test.digest


def test_classes_of_a_network_are_matched_by_name(fer_csv: Path, lists: list[str]) -> None:
    """The list's classes are in alphabetical order, those of fer2013.csv are not."""
    data = ("data=path_list", "data.size=48", "data.channels=1", "labels=source", "split=official")
    train(compose("train", *SMALL, *data, "trainer.max_epochs=1", "batch_size=4"), RUN)
    loaded = load_checkpoint(RUN)
    assert loaded.classifier.classes == tuple(loaded.data["labels"]) == tuple(sorted(EMOTIONS))
    (run,) = find_finished([str(RUN)])
    assert list(run.record.config["labels"]) == sorted(EMOTIONS)
    assert len(read_predictions(run, "none").rows) == 21
    arguments = ("evaluate", f"checkpoint={RUN}", "accelerator=cpu", "split=official")
    own, other = evaluate(compose(*arguments)), evaluate(compose(*arguments, "data=fer2013_csv"))
    assert other["all"] == own["all"]
    in_their_order = evaluate(compose(*arguments, "data=fer2013_csv", "labels=source"))
    assert list(in_their_order["all"]["classes"]) == list(EMOTIONS)
    assert in_their_order["all"]["accuracy"] == own["all"]["accuracy"]


def test_the_source_contains_an_image_once_however_often_it_is_listed() -> None:
    names = [image("a.png"), image("b.png")]
    source = read(write("t.csv", *((name, 0) for name in names * 5)))
    assert [file.name for file in source.files] == ["t.csv", "a.png", "b.png"]
    assert len(all_rows(source).labels) == 10


@pytest.mark.parametrize("labels", representative(["source", "seven", "six", "four"], "source", "six"))
def test_a_list_with_fer2013s_classes_accepts_its_schemes(labels: str, lists: list[str]) -> None:
    settings = resolve(compose("train", "data=path_list", f"labels={labels}", "split=official"), Path("run"))
    data, description = make_data(settings)
    expected = tuple(sorted(EMOTIONS)) if labels == "source" else tuple(compose("train", f"labels={labels}").labels)
    assert data.classes == expected == tuple(data.hparams["labels"])
    assert description["source"].endswith("data/train.csv")
