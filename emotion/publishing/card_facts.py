"""What is known of a classifier that travels, from the description beside its weights and nothing else."""

from collections.abc import Mapping
from typing import Any

from emotion.data.readers.fer2013 import PUBLISHED_MD5
from emotion.data.sources import stored

FER2013 = tuple(
    f"emotion.data.readers.{name}" for name in ("fer2013.read_csv", "fer2013.read_icml_csv", "image_folder.read")
)
FERPLUS, DRAWN = "emotion.data.readers.ferplus.read", "emotion.data.readers.synthetic.read"


class Facts:
    """A description, as `emotion.checkpoints.portable.description` gives it, asked the questions of a model card.

    Attributes:
        record: of the run; empty where there is none.
        settings: what the classifier was built with.
        judged: the run's scores on test by views; empty where they are of another epoch, or there are none.
        temperature: divides the logits.
        digest: of the source of the faces, MD5.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.record: dict[str, Any] = told["record"] or {}
        self.settings: dict[str, Any] = told["hyper_parameters"]
        same = self.record.get("best", {}).get("epoch") == told["epoch"]
        self.judged: dict[str, Any] = ((self.record.get("scores") or {}) if same else {}).get("test", {})
        self.temperature = float(self.settings.get("temperature", 1.0))
        self.digest: str = told["EmotionDataModule"]["source"]
        self._source: dict[str, Any] = told["datamodule_hyper_parameters"]["source"]

    @property
    def title(self) -> str:
        """`AttentionCNN: 7 facial expressions`."""
        model = self.settings["model"]
        return (
            f"{model.get('backbone') or model['_target_'].rpartition('.')[2]}: {len(self.classes)} facial expressions"
        )

    @property
    def classes(self) -> list[str]:
        """In the order of the probabilities."""
        return list(self.settings["classes"])

    @property
    def stored(self) -> tuple[int, int]:
        """Side and channels of the faces."""
        return stored(self._source)

    @property
    def readers(self) -> list[str]:
        """What read the faces, outermost first: what mixes others in, puts other labels on them, reads the file."""
        readers, source = [self._source["_target_"]], self._source
        while isinstance(source.get("source"), Mapping):
            source = source["source"]
            readers += [source["_target_"]]
        return readers

    @property
    def of_fer2013(self) -> bool:
        """Whether the faces are FER2013's, in whatever form and under whatever labels."""
        return self.readers[-1] in FER2013

    @property
    def of_ferplus(self) -> bool:
        """Whether the labels are FER+'s."""
        return FERPLUS in self.readers

    @property
    def published(self) -> bool:
        """Whether the faces are the very file that was published."""
        return self.digest == PUBLISHED_MD5 or self.record.get("data", {}).get("digest") == PUBLISHED_MD5

    @property
    def drawn(self) -> bool:
        """Whether the faces are the package's own drawings."""
        return self.readers[-1] == DRAWN

    @property
    def tempered(self) -> bool:
        """Whether the scores are of probabilities at `temperature`, where that is not 1."""
        return any("uncalibrated" in found["all"] for found in self.judged.values())

    @property
    def doubts(self) -> list[str]:
        """What whoever publishes or finds the weights is to be warned of."""
        said = []
        if self.drawn:
            said += [
                "These weights were trained and judged on SYNTHETIC faces, drawn by the package. They have seen no "
                "photograph, and their scores say nothing about real faces."
            ]
        if not self.record:
            return [*said, "There is no record of the run that made these weights: no scores, and no origin."]
        if not self.judged:
            said += ["There are no scores of these weights: their run was not scored, or another epoch of it was."]
        if not self.record.get("commit"):
            said += ["It is not known which commit holds the code that trained these weights."]
        elif "+" in self.record["commit"]:
            said += ["The code that trained these weights was changed since its commit, so nobody can run it again."]
        return said
