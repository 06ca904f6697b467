"""Find what is wrong with a source's faces and labels: python -m emotion.audit [votes=FILE] [checkpoint=RUN]."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.checkpoints.locate import locate_all
from emotion.cli import verb
from emotion.errors import UserError
from emotion.reporting.text import near as nearby

if TYPE_CHECKING:
    from emotion.data.duplicates import Groups
    from emotion.data.faces import Faces

Settings = dict[str, Any]


def audit(cfg: DictConfig, folder: Path) -> Settings:
    """What audit.json says of the source that `data` names; prints it, writes it with rows.csv and audit.html.

    Raises:
        UserError: something given is missing or wrong.
    """
    settings: Settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    _check(settings)
    from emotion.data import duplicates, issues
    from emotion.data.cache import prepare
    from emotion.data.readers.ferplus import check_rows, read_votes
    from emotion.data.sources import locate, not_found
    from emotion.io.atomic import write_text
    from emotion.records import run_record
    from emotion.reporting import audit_page

    source = locate(settings["data"])
    if source.stand_in:
        print(f"*** {not_found(settings['data'])} ***\n")
    faces = prepare(source.reader, settings["cache_dir"])
    voted = None
    if settings["votes"]:
        table = read_votes(Path(settings["votes"]), "votes")
        check_rows(Path(settings["votes"]), table, faces.source, faces.usage)
        voted = table.votes
    exact = duplicates.exact(faces.images)
    near = issues.near_groups(faces, exact, **settings["near"])
    found = issues.copies(faces, exact, voted) | issues.near_copies(faces, exact, near)
    found |= issues.pale(faces, settings["low_contrast"])
    left_out = {}
    if voted is not None:
        found |= issues.not_faces(voted)
    else:
        left_out["not_a_face"] = "needs votes=FILE, FER+'s votes on FER2013"
    judge = None
    if settings["checkpoint"]:
        from emotion.evaluation.label_issues import label_faults

        asked = (settings[name] for name in ("cache_dir", "tta", "precision", "accelerator"))
        found["label"], judge = label_faults(settings["checkpoint"], source.reader, faces, *asked)
    else:
        left_out["label"] = "needs checkpoint=RUN, a network trained on this data"
    result = {
        "command": run_record.command(),
        "commit": run_record.commit(),
        "versions": run_record.versions() | (_cleanlab() if judge else {}),
        "config": settings,
        "data": {"source": faces.source, "digest": faces.digest, "stand_in": source.stand_in},
        "votes": {"path": settings["votes"], "digest": _md5(Path(settings["votes"]))} if settings["votes"] else None,
        "checkpoint": judge,
        "faces": len(faces),
        "classes": _balance(faces),
        **_copies(faces, exact, near),
        "faults": issues.counts(faces, found),
        "not_looked_for": left_out,
    }
    _print(result)
    folder.mkdir(parents=True, exist_ok=True)
    issues.write(folder / "rows.csv", faces, found)
    write_text(folder / "audit.json", json.dumps(result, indent=2) + "\n")
    write_text(folder / "audit.html", audit_page.page(result, faces, found, settings["pictures"]))
    print("\n".join(f"wrote {nearby(folder / name)}" for name in ("rows.csv", "audit.json", "audit.html")))
    return result


def _check(settings: Settings) -> None:
    near, tta = settings["near"], ("none", "flip", "ten_crop")
    bits, correlation = near["bits"], near["correlation"]
    if not isinstance(bits, int) or not 0 <= bits < 32:
        raise UserError(f"near.bits={bits}: expected a whole number from 0 to 31, of 64.")
    if not isinstance(correlation, int | float) or not 0 < correlation <= 1:
        raise UserError(f"near.correlation={correlation}: expected a number above 0 and at most 1.")
    if not isinstance(settings["pictures"], int) or settings["pictures"] < 1:
        raise UserError(f"pictures={settings['pictures']}: expected a whole number above 0.")
    if not isinstance(settings["low_contrast"], int | float) or settings["low_contrast"] < 0:
        raise UserError(f"low_contrast={settings['low_contrast']}: expected grey levels, 0 or more.")
    if settings["tta"] not in tta:
        raise UserError(f"tta={settings['tta']}: expected {', '.join(tta)}.")
    for name, choices in (("accelerator", ("auto", "cpu", "gpu")), ("precision", ("auto", "32-true", "bf16-mixed"))):
        if settings[name] not in choices:
            raise UserError(f"{name}={settings[name]}: expected {', '.join(choices)}.")
    if settings["checkpoint"]:
        locate_all(settings["checkpoint"])
        from emotion.evaluation.label_issues import require_cleanlab

        require_cleanlab()


def _balance(faces: "Faces") -> dict[str, dict[str, int]]:
    """Faces by usage and class, of the usages that there are."""
    from emotion.data.faces import USAGES

    rows = zip(USAGES, faces.counts().tolist(), strict=True)
    return {usage: dict(zip(faces.classes, row, strict=True)) for usage, row in rows if any(row)}


def _copies(faces: "Faces", exact: "Groups", near: "Groups") -> Settings:
    """How many pictures there are, and how many rows of each usage stand in earlier ones as well."""
    import numpy as np

    from emotion.data.faces import USAGES
    from emotion.data.issues import standing_in

    present = np.unique(faces.usage).tolist()
    within: dict[str, dict[str, int]] = {}
    for place, usage in enumerate(present[1:], start=1):
        earlier = present[:place]
        row = {USAGES[other]: standing_in(exact, faces.usage, usage, [other]) for other in earlier}
        any_ = {"any": standing_in(exact, faces.usage, usage, earlier)} if place > 1 else {}
        within[USAGES[usage]] = row | any_
    pictures = len(np.unique(exact))
    return {
        "pictures": pictures,
        "redundant": len(faces) - pictures,
        "unlike_pictures": len(np.unique(near)),
        "also_in": within,
    }


def _print(result: Settings) -> None:
    from emotion.reporting.tables import print_table

    head = f"{result['faces']:,} faces of {result['data']['source']}, {result['pictures']:,} different pictures"
    lines = [{"fault": name, **{key: f"{n:,}" for key, n in row.items()}} for name, row in result["faults"].items()] + [
        {"fault": name, "rows": "-"} for name in result["not_looked_for"]
    ]
    print_table(head, lines)
    for usage, others in result["also_in"].items():
        said = ", ".join(f"{n:,} in {'any of these' if other == 'any' else other}" for other, n in others.items())
        print(f"rows of {usage} whose very pixels stand elsewhere: {said}")
    if judge := result["checkpoint"]:
        print(f"label: of {judge['held_out']:,} faces that {judge['path']} was not trained on, nor on their pixels;")
        print(f"  it has {100 * judge['accuracy']:.1f} % of them right: the more, the more its doubts mean")
    for name, reason in result["not_looked_for"].items():
        print(f"{name}: not looked for, {reason}")


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def _cleanlab() -> dict[str, str]:
    from importlib.metadata import version

    return {"cleanlab": version("cleanlab")}


@verb("audit")
def main(cfg: DictConfig) -> None:
    """Audit and report."""
    audit(cfg, Path(cfg.output or nearby(Path(HydraConfig.get().runtime.output_dir))))


if __name__ == "__main__":
    main()
