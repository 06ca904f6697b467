"""The model card of a published classifier, rendered from model_card.md."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from emotion.checkpoints.hub import CONFIG, WEIGHTS
from emotion.publishing.card_facts import ModelFacts
from emotion.publishing.upload import LABELS, ONNX
from emotion.reporting.tables import ROWS, Row, markdown_table
from emotion.reporting.text import escape_markdown, format_duration, format_interval, format_loss, format_percent

TEMPLATE = Path(__file__).with_name("model_card.md")
FILES = {
    WEIGHTS: "weights",
    CONFIG: "network, input, classes, temperature, data settings; record of the run with all scores",
    ONNX: "from raw uint8 faces to calibrated probabilities",
    LABELS: "class names by output index and the reverse",
}


def model_card(facts: ModelFacts, folder: Path, repo: str, license: str | None) -> str:
    """Render the README.md of the files in `folder` for the repository `repo`."""
    card = ModelCard.from_template(
        _metadata(facts, repo, license),
        template_path=str(TEMPLATE),
        repo=repo,
        license=license,
        facts=facts,
        class_names=list(map(escape_markdown, facts.classes)),
        record=facts.record,
        has_onnx=(folder / ONNX).is_file(),
        fit_duration=format_duration(facts.record.fit_seconds),
        files_table=markdown_table(_file_rows(folder), left=2),
        number="{:,}".format,
        percent=format_interval,
        **_scores(facts),
    )
    return f"{str(card).rstrip()}\n"


def _metadata(facts: ModelFacts, repo: str, license: str | None) -> ModelCardData:
    """Return the metadata that the Hub reads."""
    dataset, name = facts.dataset
    scores = next(iter(facts.scores.values()))["all"] if facts.scores else None
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=dataset,
            dataset_name=name,
            dataset_split="test",
            metric_type=metric,
            metric_name=metric_name,
            metric_value=round(scores[key][0], 4),
        )
        for metric, metric_name, key in (("accuracy", "Accuracy", "accuracy"), ("f1", "Macro F1", "macro_f1"))
        if scores
    ]
    weights = facts.record.weights or {}
    from_hub = weights.get("digest", "") is None and "/" in weights["source"]
    return ModelCardData(
        license=license,
        library_name="emotion",
        pipeline_tag="image-classification",
        tags=["facial-expression-recognition", "emotion-recognition", "pytorch"],
        base_model=weights["source"] if from_hub else None,
        datasets=[dataset] if facts.is_fer2013 else None,
        metrics=[result.metric_type for result in results] or None,
        model_name=repo.partition("/")[2] if results else None,
        eval_results=results or None,
    )


def _scores(facts: ModelFacts) -> dict[str, Any]:
    """Return the template's variables about scores."""
    if not facts.scores:
        return {"scores": None}
    plain, split = next(iter(facts.scores.values())), facts.record.config["split"]
    settings = [f", {key} {split[key]}" for key in ("fraction", "seed") if split.get(key) is not None]
    return {
        "scores": plain["all"],
        "precision": plain["precision"],
        "tta": list(facts.scores),
        "split_settings": "".join(settings),
        "scores_table": markdown_table(_score_rows(facts), left=2),
        "class_table": markdown_table(_class_rows(facts, plain["all"]["classes"])),
    }


def _score_rows(facts: ModelFacts) -> list[Row]:
    rows: list[Row] = []
    for tta, scores_by_subset in facts.scores.items():
        for subset, name in ROWS.items():
            scores = scores_by_subset[subset]
            row = {
                "TTA": tta,
                "test faces": f"{name} ({scores['n']:,})",
                "accuracy %": format_interval(scores["accuracy"]),
                "macro F1 %": format_interval(scores["macro_f1"]),
                "NLL": format_loss(scores["nll"]),
                "ECE %": format_percent(scores["ece"]),
            }
            if uncalibrated := scores.get("uncalibrated"):
                row["uncalibrated ECE %"] = format_percent(uncalibrated["ece"])
            rows.append(row)
    return rows


def _class_rows(facts: ModelFacts, scores_by_class: dict[str, Any]) -> list[Row]:
    counts = dict(zip(facts.classes, facts.settings.get("class_counts", ()), strict=False))
    counts_are_of_training = sum(counts.values()) == facts.record.split.get("train")  # without sampled validation rows
    rows: list[Row] = []
    for name, scores in scores_by_class.items():
        row = {"class": escape_markdown(name)}
        if counts_are_of_training:
            row["training faces"] = f"{counts[name]:,.0f}"
        row["test faces"] = f"{scores['n']:,}"
        rows.append(row | {f"{key} %": format_interval(scores[key.lower()]) for key in ("precision", "recall", "F1")})
    return rows


def _file_rows(folder: Path) -> list[Row]:
    return [
        {"file": f"`{name}`", "content": content, "bytes": f"{(folder / name).stat().st_size:,}"}
        for name, content in FILES.items()
        if (folder / name).is_file()
    ]
