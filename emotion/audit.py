"""Audit the faces and labels of a source: python -m emotion.audit [votes=FILE] [checkpoint=RUN]."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.checkpoints.locate import locate_all
from emotion.cli import verb
from emotion.config.typed import ACCELERATORS, EVALUATION_PRECISIONS, check_choices, typed
from emotion.errors import UserError, counted, require_extra
from emotion.reporting.text import relative_path, wrapped
from emotion.runtime.announce import announce

if TYPE_CHECKING:
    from emotion.data.duplicates import Groups
    from emotion.data.faces import Faces


@dataclass  # OmegaConf cannot fill a frozen one
class NearConfig:
    """Which faces count as near duplicates."""

    bits: int
    correlation: float
    mirrored: bool


@dataclass(frozen=True)
class AuditConfig:
    """The settings of conf/audit.yaml."""

    data_dir: str
    cache_dir: str
    data: dict[str, Any]
    votes: str | None
    checkpoint: Any
    tta: str
    precision: str
    accelerator: str
    near: NearConfig
    low_contrast: float
    max_images: int
    output: str | None


def audit(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Find issues of a source; print them, write audit.json, audit.html and rows.csv; return the content of audit.json.

    Raises:
        UserError: A setting is invalid, or the data, the votes or a checkpoint is missing or does not match.
    """
    config = typed(cfg, AuditConfig)
    _check(config)
    from emotion.data import duplicates, issues
    from emotion.data.cache import prepare
    from emotion.data.readers.ferplus import check_votes, read_votes
    from emotion.data.sources import select_source, synthetic_warning
    from emotion.io.atomic import make_folder, write_json, write_text
    from emotion.records import run_record
    from emotion.reporting import audit_page

    source = select_source(config.data)
    if source.is_fallback:
        print(wrapped(f"*** {synthetic_warning(config.data)} ***") + "\n")
    table = read_votes(Path(config.votes), "votes") if config.votes else None
    faces = prepare(source.config, config.cache_dir)
    announce(f"looking for duplicates and low-contrast images among {counted(len(faces), 'face')}")
    votes, votes_file, skipped = None, None, {}
    if config.votes and table:
        path = Path(config.votes)
        check_votes(path, table, faces)
        votes, votes_file = table.votes, {"path": str(path), "digest": hashlib.md5(path.read_bytes()).hexdigest()}
    exact = duplicates.exact_groups(faces.images)
    near = issues.near_duplicate_groups(faces, exact, **asdict(config.near))
    found = issues.find_duplicates(faces, exact, votes) | issues.find_near_duplicates(faces, exact, near)
    found |= issues.find_low_contrast(faces, config.low_contrast)
    if votes is not None:
        found |= issues.find_non_faces(votes)
    else:
        skipped["not_a_face"] = "needs votes=FILE, FER+'s votes on FER2013"
    checkpoint = None
    if config.checkpoint:
        from emotion.evaluation.label_issues import find_label_issues

        announce("classifying the faces that the checkpoint was not trained on")
        found["label"], checkpoint = find_label_issues(
            config.checkpoint, source.config, faces, config.cache_dir, config.tta, config.precision, config.accelerator
        )
    else:
        skipped["label"] = "needs checkpoint=RUN, a network trained on this data"
    result = {
        **run_record.provenance(*("cleanlab",) * bool(checkpoint)),
        "config": asdict(config),
        "data": {
            "source": faces.source,
            "digest": faces.digest,
            "synthetic": faces.is_synthetic,
            "fallback": source.is_fallback,
        },
        "votes": votes_file,
        "checkpoint": checkpoint,
        "faces": len(faces),
        "classes": _class_counts(faces),
        **_duplicate_counts(faces, exact, near),
        "issues": issues.count_issues(faces, found),
        "skipped": skipped,
    }
    _print(result)
    make_folder(folder)
    issues.write_rows(folder / "rows.csv", faces, found)
    write_json(folder / "audit.json", result)
    write_text(
        folder / "audit.html",
        audit_page.page(result, faces, found, config.max_images, relative_path(folder / "rows.csv")),
    )
    print("\n".join(f"wrote {relative_path(folder / name)}" for name in ("rows.csv", "audit.json", "audit.html")))
    return result


def _check(config: AuditConfig) -> None:
    from emotion.data.transforms.tta import TTA
    from emotion.runtime.hardware import check_gpu

    near = config.near
    for name, value, is_valid, expected in (
        ("near.bits", near.bits, 0 <= near.bits < 32, "a whole number from 0 to 31 (of 64 bits)"),
        ("near.correlation", near.correlation, 0 < near.correlation <= 1, "a number above 0 and at most 1"),
        ("max_images", config.max_images, config.max_images > 0, "a whole number above 0"),
        ("low_contrast", config.low_contrast, config.low_contrast >= 0, "gray levels, 0 or more"),
    ):
        if not is_valid:
            raise UserError(f"{name}={value}: expected {expected}.")
    check_choices(
        config,
        tta=tuple(TTA),
        accelerator=ACCELERATORS,
        precision=EVALUATION_PRECISIONS,
    )
    check_gpu(config.accelerator)
    if config.checkpoint:
        locate_all(config.checkpoint)
        require_extra("finding label issues (checkpoint=)", "audit", "cleanlab")


def _class_counts(faces: "Faces") -> dict[str, dict[str, int]]:
    """Return the number of faces by usage and class, for usages that occur."""
    from emotion.data.faces import USAGES

    rows = zip(USAGES, faces.counts().tolist(), strict=True)
    return {usage: dict(zip(faces.classes, row, strict=True)) for usage, row in rows if any(row)}


def _duplicate_counts(faces: "Faces", exact: "Groups", near: "Groups") -> dict[str, Any]:
    """Return the number of distinct images, and for each usage the rows whose pixels occur in an earlier one."""
    import numpy as np

    from emotion.data.faces import USAGES

    present = np.unique(faces.usage).tolist()
    in_earlier: dict[str, dict[str, int]] = {}
    for index, usage in enumerate(present[1:], start=1):
        others = {USAGES[other]: [other] for other in present[:index]}
        if len(others) > 1:
            others["any"] = present[:index]
        groups = exact[faces.usage == usage]
        in_earlier[USAGES[usage]] = {
            name: int(np.isin(groups, exact[np.isin(faces.usage, usages)]).sum()) for name, usages in others.items()
        }
    distinct = len(np.unique(exact))
    return {
        "distinct_images": distinct,
        "redundant_rows": len(faces) - distinct,
        "near_distinct_images": len(np.unique(near)),
        "in_earlier_parts": in_earlier,
    }


def _print(result: dict[str, Any]) -> None:
    from emotion.reporting.tables import print_table

    total, distinct = counted(result["faces"], "face"), counted(result["distinct_images"], "distinct image")
    title = f"{total} of {result['data']['source']}, {distinct}"
    rows = [{"issue": name, **{key: f"{n:,}" for key, n in row.items()}} for name, row in result["issues"].items()]
    print_table(title, [*rows, *({"issue": name, "rows": "-"} for name in result["skipped"])])
    for usage, others in result["in_earlier_parts"].items():
        counts = ", ".join(f"{n:,} in {'any of them' if other == 'any' else other}" for other, n in others.items())
        print(f"rows of {usage} whose exact pixels occur in earlier parts: {counts}")
    if checkpoint := result["checkpoint"]:
        print(
            f"label: {checkpoint['path']} classifies {100 * checkpoint['accuracy']:.1f} % of "
            f"{counted(checkpoint['held_out'], 'held-out face')} as labeled; the higher this accuracy, the more "
            f"reliable its suggestions"
        )
    for name, reason in result["skipped"].items():
        print(f"{name}: skipped, {reason}")


@verb("audit", positional="checkpoint", uses_torch=True)
def main(cfg: DictConfig) -> None:
    """Audit a source."""
    audit(cfg, Path(cfg.output or relative_path(Path(HydraConfig.get().runtime.output_dir))))


if __name__ == "__main__":
    main()
