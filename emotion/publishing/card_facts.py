"""The facts about a classifier that its model card states, from the description of its weights."""

from collections.abc import Mapping
from typing import Any

from emotion.checkpoints.contents import CheckpointContents
from emotion.config.instantiate import network_name
from emotion.data.cache import published_digest
from emotion.data.faces import EMOTIONS
from emotion.data.names import known_class
from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.data.sources import stored_shape
from emotion.errors import counted
from emotion.records.run_record import RunRecord
from emotion.reporting.text import escape_markdown

FER2013_READERS = tuple(f"emotion.data.readers.fer2013.{name}" for name in ("read_csv", "read_icml_csv"))
IMAGE_READERS = ("emotion.data.readers.image_folder.read", "emotion.data.readers.parquet.read")
"""Readers of FER2013 and of other faces."""
FER2013_FACES = dict(zip(EMOTIONS, (4953, 547, 5121, 8989, 6077, 4002, 6198), strict=True))
FERPLUS_READER, SYNTHETIC_READER = "emotion.data.readers.ferplus.read", "emotion.data.readers.synthetic.read"
FER2013_TEST = {
    "official": "PrivateTest",
    "swapped_test": "PublicTest, since PrivateTest chose the epoch",
    "stratified": "PublicTest and PrivateTest together",
    "random": "PublicTest and PrivateTest together",
}
"""FER2013's usage of the test part of each split."""


class ModelFacts:
    """What the description of weights says about the classifier."""

    def __init__(self, description: CheckpointContents) -> None:
        self.record = RunRecord.from_dict(description.record or {})
        self.settings: dict[str, Any] = description.hyper_parameters
        self.classes = list(description.classes)
        scored = self.record.best.get("epoch") == description.epoch + 1
        self.scores: dict[str, Any] = self.record.test_scores if scored else {}  # by TTA
        self.temperature = float(self.settings.get("temperature", 1.0))
        self.is_calibrated = any("uncalibrated" in scores["all"] for scores in self.scores.values())

        source = description.data_hyper_parameters["source"]
        self.side, self.channels = stored_shape(source)
        published = {PUBLISHED_MD5, published_digest(source)}
        self.is_published_file = bool(published & {description.data_state["source"], self.record.data.get("digest")})
        readers: list[str] = [source["_target_"]]  # from the outermost (a mix, other labels) to that of the files
        while isinstance(source.get("source"), Mapping):
            source = source["source"]
            readers.append(source["_target_"])
        labels: dict[str, list[str]] = description.data_hyper_parameters["labels"]
        known = [known_class(member) for members in labels.values() for member in members]
        self.is_ferplus = FERPLUS_READER in readers
        is_csv = readers[-1] in FER2013_READERS
        has_its_counts = self._num_faces == sum(FER2013_FACES.get(name or "", 0) for name in known)
        is_image_form = readers[-1] in IMAGE_READERS and (self.is_ferplus or has_its_counts)
        self.is_fer2013 = all(known) and (is_csv or is_image_form)  # in any format and with any labels
        of_data = [*EMOTIONS, *(["contempt"] if self.is_ferplus else [])]
        self.left_out = [name for name in of_data if self.is_fer2013 and is_csv and name not in known]
        self.has_all_classes = len(self.classes) == len(of_data)
        self.is_synthetic = readers[-1] == SYNTHETIC_READER

    @property
    def _num_faces(self) -> int:
        """Number of faces of the data in the classes, according to the record: of all parts, also excluded ones."""
        mixed: dict[str, int] = self.record.data.get("mix", {"rows": {}})["rows"]
        return sum(self.record.split.values()) + self.record.num_excluded - sum(mixed.values())

    @property
    def title(self) -> str:
        """Title of the card, such as `AttentionCNN: 7 facial expressions`."""
        return f"{network_name(self.settings['model'])}: {len(self.classes)} facial expressions"

    @property
    def dataset(self) -> tuple[str, str]:
        """Identifier and name of the data for the metadata."""
        if self.is_ferplus or self.is_fer2013:
            identifier, name = ("ferplus", "FER+") if self.is_ferplus else ("fer2013", "FER2013")
            return identifier, name if self.has_all_classes else f"{name}, {len(self.classes)} classes"
        return ("synthetic", "Synthetic faces") if self.is_synthetic else ("other", "Other faces")

    @property
    def fer2013_test(self) -> str | None:
        """FER2013's usage of the test part; None for other data and splits."""
        usage = FER2013_TEST.get(self.record.split_name) if self.is_fer2013 else None
        return f"of {usage}, without the classes left out" if usage and self.left_out else usage

    @property
    def warnings(self) -> list[str]:
        """Reasons to distrust the weights, each a sentence or two."""
        warnings = []
        if self.is_synthetic:
            warnings.append(
                "These weights were trained and evaluated on SYNTHETIC faces rendered by the package. They have seen "
                "no photograph, and their scores say nothing about real faces."
            )
        if not self.record.command:
            return [*warnings, "There is no record of the run that produced these weights: no scores and no origin."]
        if not self.scores:
            warnings.append("These weights have no scores: their run was not scored, or at another epoch.")
        if not self.record.commit:
            warnings.append("The commit of the code that trained these weights is unknown.")
        elif "+" in self.record.commit:
            warnings.append(
                "The code that trained these weights was modified after its commit, so the training cannot be repeated."
            )
        return warnings

    @property
    def training(self) -> list[str]:
        """Lines about what else went into the training."""
        record, lines = self.record, []
        if record.weights:
            lines.append(f"initialized with the weights {record.weights['source']}")
        if record.distillation:
            teachers = ", ".join(str(teacher["path"]) for teacher in record.distillation["teachers"])
            lines.append(f"distilled from {teachers}")
        if mix := record.data.get("mix"):
            lines.append(f"training faces added from {mix['source']}")
        if exclusions := record.data.get("exclusions"):
            lines.append(f"{counted(record.num_excluded, 'face')} excluded by {exclusions['file']}")
        if self.left_out:
            names = escape_markdown(", ".join(self.left_out))
            lines.append(f"left out, as the classes contain none of them: faces labeled {names}")
        merged = {name: emotions for name, emotions in record.labels.items() if list(emotions) != [name]}
        if merged:
            classes = "; ".join(f"{name} is the data's {' or '.join(emotions)}" for name, emotions in merged.items())
            lines.append(f"classes: {escape_markdown(classes)}")
        return lines
