"""The page that a published classifier bears: what it is, how good, for what, and what is wrong with its data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from emotion.publishing import card_texts
from emotion.publishing.card_facts import Facts
from emotion.reporting.tables import Scores, markdown
from emotion.reporting.text import duration, loss, share, spread

ROWS = {"all": "all", "clean": "not in training"}
TTA = {
    "none": "`none` looks at a face once",
    "flip": "`flip` averages it and its mirror image",
    "ten_crop": "`ten_crop` averages ten cuts of it",
}
TEST_OF_FER2013 = {
    "official": "PrivateTest",
    "swapped": "PublicTest, as PrivateTest chose the epoch",
    "stratified": "PublicTest and PrivateTest together",
    "random": "PublicTest and PrivateTest together",
}


def section(facts: Facts) -> str:
    """Markdown: overall, by class, protocol; empty without scores."""
    if not facts.judged:
        return ""
    tta, plain = next(iter(facts.judged.items()))
    by_class = f"By class, all test faces, views `{tta}`:"
    protocol = "\n".join(f"- {line}" for line in _protocol(facts))
    classes = markdown(_classes(facts, plain))
    return f"## Scores\n\n{markdown(_overall(facts), left=2)}\n{by_class}\n\n{classes}\n{protocol}"


def in_short(facts: Facts) -> str:
    """One sentence; empty without scores."""
    if not facts.judged:
        return ""
    found = next(iter(facts.judged.values()))["all"]
    return (
        f"It agrees with the labels of {spread(found['accuracy'])} % of {found['n']:,} test faces; macro F1 is "
        f"{spread(found['macro_f1'])} % (in brackets 95 % intervals)."
    )


def _overall(facts: Facts) -> list[dict[str, str]]:
    lines = []
    for tta, judged in facts.judged.items():
        for rows, name in ROWS.items():
            found = judged[rows]
            line = {
                "tta": tta,
                "test faces": f"{name} ({found['n']:,})",
                "accuracy %": spread(found["accuracy"]),
                "macro F1 %": spread(found["macro_f1"]),
                "NLL": loss(found["nll"]),
                "ECE %": share(found["ece"]),
            }
            if before := found.get("uncalibrated"):
                line["at T = 1"] = share(before["ece"])
            lines.append(line)
    return lines


def _classes(facts: Facts, judged: Scores) -> list[dict[str, str]]:
    counts = dict(zip(facts.classes, facts.settings.get("class_counts", ()), strict=False))
    counted = sum(counts.values()) == facts.record["split"]["train"]  # else they are of what the split drew from
    return [
        {"class": name}
        | ({"training faces": f"{counts[name]:,.0f}"} if counted else {})
        | {"test faces": f"{found['n']:,}"}
        | {f"{key} %": spread(found[key.lower()]) for key in ("precision", "recall", "F1")}
        for name, found in judged["all"]["classes"].items()
    ]


def _protocol(facts: Facts) -> list[str]:
    record = facts.record
    split, parts, best = record["config"]["split"], record["split"], record["best"]
    name = split["_target_"].rpartition(".")[2]
    drawn = "".join(f", {key} {split[key]}" for key in ("fraction", "seed") if split.get(key) is not None)
    which = f" ({TEST_OF_FER2013[name]})" if facts.of_fer2013 and name in TEST_OF_FER2013 else ""
    if facts.tempered:
        of = (
            f"at temperature T = {facts.temperature:.3g}, which was fitted on the validation faces; *at T = 1* is the "
            f"ECE without it"
        )
    elif facts.temperature == 1:
        of = "as the network gives them, at temperature 1"
    else:
        of = f"at temperature 1; the files apply {facts.temperature:.3g}, and of that the record says nothing"
    return [
        f"Split `{name}`{drawn}: {parts['train']:,} faces trained it, {parts['val']:,} others chose epoch "
        f"{best['epoch'] + 1} of {record['epochs']} ({best['metric']} {best['score']:.4f}), {parts['test']:,} are the "
        f"test{which}.",
        f"One training (n = 1, seed {record['config']['seed']}); another seed gives other figures. The 95 % intervals "
        f"in brackets are over the choice of test faces: Wilson's for accuracy, precision and recall, a bootstrap for "
        f"F1, a normal one for NLL.",
        f"Views: {', '.join(TTA.get(tta, tta) for tta in facts.judged)}. *Not in training* leaves out the test "
        f"faces whose very pixels stand in training.",
        f"NLL, the negative log-likelihood, and ECE, the calibration error, are of the probabilities {of}.",
        f"Scored in {next(iter(facts.judged.values()))['precision']}, before the weights were rounded to half "
        f"precision.",
    ]


def card(facts: Facts, folder: Path, repo: str, licence: str | None) -> str:
    """README.md for the files in `folder`: YAML for the Hub, Markdown for people."""
    parts = [
        f"---\n{_metadata(facts, repo, licence)}\n---",
        f"# {facts.title}",
        *(f"**{said}**" for said in facts.doubts),
        _in_short(facts),
        _use(facts, repo, onnx=(folder / "model.onnx").is_file()),
        section(facts),
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
        f"{', '.join(facts.classes[:-1])} and {facts.classes[-1]}.{size} {in_short(facts)}".rstrip()
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
    return f"## Files\n\n{markdown(lines, left=2).rstrip()}{terms}"
