"""The page that a published classifier bears: what it is, how good, for what, and what is wrong with its data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from emotion import report
from emotion.cli import duration
from emotion.publishing import card_scores, card_texts
from emotion.publishing.card_facts import Facts


def card(facts: Facts, folder: Path, repo: str, licence: str | None) -> str:
    """README.md for the files in `folder`: YAML for the Hub, Markdown for people."""
    parts = [
        f"---\n{_metadata(facts, repo, licence)}\n---",
        f"# {facts.title}",
        *(f"**{said}**" for said in facts.doubts),
        _in_short(facts),
        _use(facts, repo, onnx=(folder / "model.onnx").is_file()),
        card_scores.section(facts),
        card_texts.INTENDED,
        _limits(facts),
        _training(facts),
        _files(folder, licence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(facts: Facts, repo: str, licence: str | None) -> str:
    known = {"fer2013": "FER2013"} if facts.of_fer2013 else {"synthetic": "Drawn faces"} if facts.drawn else {}
    if facts.of_ferplus:
        known = {"ferplus": "FER+"}
    kind, name = next(iter(known.items()), ("other", "Other faces"))
    figures = {"accuracy": ("Accuracy", "accuracy"), "f1": ("Macro F1", "macro_f1")} if facts.judged else {}
    scores = next(iter(facts.judged.values()))["all"] if facts.judged else {}
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=kind,
            dataset_name=name,
            dataset_split="test",
            metric_type=metric,
            metric_name=shown,
            metric_value=round(scores[key][0], 4),
        )
        for metric, (shown, key) in figures.items()
    ]
    weights = facts.record.get("weights") or {}
    data = ModelCardData(
        license=licence,
        library_name="emotion",
        pipeline_tag="image-classification",
        tags=["facial-expression-recognition", "emotion-recognition", "pytorch"],
        base_model=weights["source"] if weights and weights["digest"] is None and "/" in weights["source"] else None,
        datasets=[kind] if facts.of_fer2013 else None,
        metrics=list(figures) or None,
        model_name=repo.partition("/")[2] if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _in_short(facts: Facts) -> str:
    side, channels = facts.stored
    parameters = facts.record.get("parameters")
    size = f" {parameters:,} parameters, whose weights are kept in half precision." if parameters else ""
    return (
        f"Takes a face of {side}x{side} {'grey' if channels == 1 else 'RGB'} pixels, and gives the probabilities of "
        f"{', '.join(facts.classes[:-1])} and {facts.classes[-1]}.{size} {card_scores.in_short(facts)}".rstrip()
    )


def _use(facts: Facts, repo: str, *, onnx: bool) -> str:
    side, channels = facts.stored
    said = card_texts.USE.format(repo=repo)
    if not onnx:
        return said
    mode = "L" if channels == 1 else "RGB"
    return f"{said}\n\n{card_texts.USE_ONNX.format(repo=repo, side=side, mode=mode, classes=json.dumps(facts.classes))}"


def _limits(facts: Facts) -> str:
    if facts.drawn:
        return f"{card_texts.LIMITS}\n\n{card_texts.DRAWN}"
    if not facts.of_fer2013:
        return f"{card_texts.LIMITS}\n\n{card_texts.OTHER}"
    parts = [card_texts.LIMITS, card_texts.FER2013]
    parts += [card_texts.FERPLUS] if facts.of_ferplus else []
    parts += [] if facts.published else [card_texts.ANOTHER_FORM]
    return "\n\n".join(parts)


def _training(facts: Facts) -> str:
    record = facts.record
    if not record:
        return ""
    same = ", the published file" if facts.published else ""
    lines = [
        f"`{record['command']}`",
        f"commit {record.get('commit') or 'unknown'}",
        f"data: {record['data']['source']} (MD5 {record['data']['digest']}{same})",
        *_besides(record),
        ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
    ]
    if "fit_seconds" in record and "machine" in record:
        machine = record["machine"]
        lines += [f"{duration(record['fit_seconds'])} on {machine['device']}, {machine['precision']}"]
    return "\n".join(["## Training", "", *(f"- {line}" for line in lines), "", "`config.json` holds the whole record."])


def _besides(record: Mapping[str, Any]) -> list[str]:
    """What else went into the training, a line for each."""
    data, said = record["data"], []
    if weights := record.get("weights"):
        said += [f"began with the weights {weights['source']}"]
    if taught := record.get("distillation"):
        said += [f"taught by {', '.join(str(one['path']) for one in taught['teachers'])}"]
    if mix := data.get("mix"):
        said += [f"mixed into its training: {mix['source']}"]
    if dropped := data.get("dropped"):
        said += [f"left out, as {dropped['file']} lists them: {sum(dropped['rows'].values()):,} faces"]
    renamed = {name: of for name, of in record["config"]["labels"].items() if list(of) != [name]}
    if renamed:
        said += ["classes: " + "; ".join(f"{name} is the data's {' or '.join(of)}" for name, of in renamed.items())]
    return said


def _files(folder: Path, licence: str | None) -> str:
    lines = [
        {"file": f"`{name}`", "what it holds": said, "bytes": f"{(folder / name).stat().st_size:,}"}
        for name, said in card_texts.FILES.items()
        if (folder / name).is_file()
    ]
    terms = "" if licence else "\n\nNo licence was given for these weights."
    return f"## Files\n\n{report.markdown(lines, left=2).rstrip()}{terms}"
