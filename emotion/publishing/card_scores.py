"""A model card's scores, and how they came about."""

from emotion import report
from emotion.publishing.card_facts import Facts

ROWS = {"all": "all", "clean": "not in training"}
VIEWS = {
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
    views, plain = next(iter(facts.judged.items()))
    by_class = f"By class, all test faces, views `{views}`:"
    protocol = "\n".join(f"- {line}" for line in _protocol(facts))
    classes = report.markdown(_classes(facts, plain))
    return f"## Scores\n\n{report.markdown(_overall(facts), left=2)}\n{by_class}\n\n{classes}\n{protocol}"


def in_short(facts: Facts) -> str:
    """One sentence; empty without scores."""
    if not facts.judged:
        return ""
    found = next(iter(facts.judged.values()))["all"]
    return (
        f"It agrees with the labels of {report.spread(found['accuracy'])} % of {found['n']:,} test faces; macro F1 is "
        f"{report.spread(found['macro_f1'])} % (in brackets 95 % intervals)."
    )


def _overall(facts: Facts) -> list[dict[str, str]]:
    lines = []
    for views, judged in facts.judged.items():
        for rows, name in ROWS.items():
            found = judged[rows]
            line = {
                "views": views,
                "test faces": f"{name} ({found['n']:,})",
                "accuracy %": report.spread(found["accuracy"]),
                "macro F1 %": report.spread(found["macro_f1"]),
                "NLL": report.loss(found["nll"]),
                "ECE %": report.share(found["ece"]),
            }
            if before := found.get("uncalibrated"):
                line["at T = 1"] = report.share(before["ece"])
            lines.append(line)
    return lines


def _classes(facts: Facts, judged: report.Scores) -> list[dict[str, str]]:
    counts = dict(zip(facts.classes, facts.settings.get("class_counts", ()), strict=False))
    counted = sum(counts.values()) == facts.record["split"]["train"]  # else they are of what the split drew from
    return [
        {"class": name}
        | ({"training faces": f"{counts[name]:,.0f}"} if counted else {})
        | {"test faces": f"{found['n']:,}"}
        | {f"{key} %": report.spread(found[key.lower()]) for key in ("precision", "recall", "F1")}
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
        f"Views: {', '.join(VIEWS.get(views, views) for views in facts.judged)}. *Not in training* leaves out the test "
        f"faces whose very pixels stand in training.",
        f"NLL, the negative log-likelihood, and ECE, the calibration error, are of the probabilities {of}.",
        f"Scored in {next(iter(facts.judged.values()))['precision']}, before the weights were rounded to half "
        f"precision.",
    ]
