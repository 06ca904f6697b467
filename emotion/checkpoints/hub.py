"""Classifiers of ours on the Hugging Face Hub: what is fetched, and what its answers mean in plain words.

Of a repository two files are read, config.json and model.safetensors, both of one commit; nothing in either can run.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants, get_token, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # that of its own choice, by whatever name

from emotion.checkpoints import portable
from emotion.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

CONFIG, WEIGHTS = portable.CONFIG, "model.safetensors"
LARGEST = {CONFIG: 4_000_000, WEIGHTS: 2_000_000_000}
"""Bytes; what is larger is not fetched."""

NAME = re.compile(r"(?P<repo>[a-zA-Z0-9][\w.-]*/\w([\w.-]*\w)?)(@(?P<revision>\w[\w./+-]*))?", re.ASCII)
PATIENCE = 20.0  # seconds for an answer
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


class HubUnreachable(UserError):
    """The Hub does not answer, or not now."""


class RepositoryNotFound(UserError):
    """There is no such repository, for whoever asks."""


def download(name: str) -> Path:
    """The weights of `owner/name` or `owner/name@revision` in this machine's cache, their description beside them.

    Where the Hub cannot be reached, what was fetched of it before; says so on stderr.

    Raises:
        UserError: there is no such repository, or it holds no classifier of ours.
    """
    repo, revision = parse_name(name)
    try:
        info = model_info(repo, revision)
    except HubUnreachable as error:
        kept = _kept(repo, revision)
        if kept is None:
            raise UserError(f"{error} No copy of {_shown(repo, revision)} lies in this machine's cache.") from None
        if not constants.HF_HUB_OFFLINE:
            print(f"{error} Taken instead: the copy here, of commit {kept.parent.name}.", file=sys.stderr)
        return kept
    _check(_shown(repo, revision), info)
    with hub_errors(repo, revision):
        config = Path(hf_hub_download(repo, CONFIG, revision=revision))  # by its name, which is kept for offline
    if config.parent.name != info.sha:
        raise UserError(f"{_shown(repo, revision)} was changed at this very moment; try again.")
    try:
        portable.read_description(config.with_name(WEIGHTS))  # refused before its weights are fetched
    except UserError as error:
        raise UserError(f"{_shown(repo, revision)}: {error}") from error
    with hub_errors(repo, revision):
        return Path(hf_hub_download(repo, WEIGHTS, revision=info.sha))


def parse_name(name: str) -> tuple[str, str | None]:
    """`owner/name` and the revision, None where `name` says nothing of it.

    Raises:
        UserError: it cannot be a repository's name.
    """
    found = NAME.fullmatch(name)
    if not found or ".." in name or "--" in found["repo"] or found["repo"].endswith(".git") or len(found["repo"]) > 96:
        raise UserError(f"{name!r} names no repository of the Hugging Face Hub; expected OWNER/NAME or OWNER/NAME@TAG.")
    return found["repo"], found["revision"]


def model_info(repo: str, revision: str | None = None) -> "ModelInfo":
    """The repository's commit and its files with their sizes.

    Raises:
        UserError: there is none.
    """
    with hub_errors(repo, revision):
        return HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=PATIENCE)


@contextmanager
def hub_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """The Hub's refusals, and of getting there, as a UserError that bears no token."""
    try:
        yield
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        wrapped = isinstance(error, RuntimeError) and error.__cause__ is not None  # by what transfers large files
        raise _refusal(error.__cause__ if wrapped else error, repo, revision) from None


def _refusal(error: BaseException | None, repo: str, revision: str | None) -> UserError:
    shown = _shown(repo, revision)
    match error:
        case GatedRepoError():
            return UserError(
                f"{shown} is gated: ask for access at {constants.ENDPOINT}/{repo}, then give a token that has it "
                f"(HF_TOKEN, or hf auth login)."
            )
        case RepositoryNotFoundError():
            return RepositoryNotFound(
                f"{shown}: no such repository, or a private one and no token that may read it. Check the name; a token "
                f"is taken from HF_TOKEN or from hf auth login."
            )
        case RevisionNotFoundError():
            return UserError(f"{shown}: the repository has no branch, tag or commit {revision}.")
        case HfHubHTTPError(response=response, server_message=message):
            status, said = response.status_code, f": {_without_token(message)}" if message else ""
            if status >= 500:
                return HubUnreachable(f"{shown}: the Hub answers {status}; try again later.")
            token = " Give another token: HF_TOKEN, or hf auth login." if status in (401, 403) else ""
            return UserError(f"{shown}: the Hub refuses with {status}{said}.{token}")
        case OfflineModeIsEnabled():
            return HubUnreachable(f"{shown}: HF_HUB_OFFLINE forbids to ask the Hub.")
        case httpx.HTTPError():
            return HubUnreachable(f"{shown}: the Hub cannot be reached ({_without_token(error)}).")
    return UserError(f"{shown}: {type(error).__name__}: {_without_token(error)}.")


def _check(shown: str, info: "ModelInfo") -> None:
    """Raises UserError where the files are missing or larger than those of ours."""
    found = {one.rfilename: one.size for one in info.siblings or []}
    if missing := [name for name in LARGEST if name not in found]:
        pickles = [name for name in found if name.endswith(PICKLES)]
        never = f" {', '.join(pickles[:3])}: a pickle, which is never loaded." if pickles else ""
        held = ", ".join(sorted(found)[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        raise UserError(
            f"{shown} has no {' and no '.join(missing)}; found {held or 'nothing'}.{never} Expected a repository that "
            f"python -m emotion.publish filled."
        )
    for name, largest in LARGEST.items():
        size = found[name]
        if size is None or size > largest:
            raise UserError(
                f"{shown}: {name} has {'an unknown number of' if size is None else f'{size:,}'} bytes; expected "
                f"{largest:,} at most. It was not fetched."
            )


def _kept(repo: str, revision: str | None) -> Path | None:
    """The weights of what was fetched last under that name, None where nothing was."""
    try:
        config = Path(hf_hub_download(repo, CONFIG, revision=revision, local_files_only=True))
        return Path(hf_hub_download(repo, WEIGHTS, revision=config.parent.name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _shown(repo: str, revision: str | None) -> str:
    return f"hub:{repo}" + (f"@{revision}" if revision else "")


def _without_token(said: object) -> str:
    """Its first line; nothing of it where it quotes the token."""
    line, token = (str(said).strip() or type(said).__name__).splitlines()[0].rstrip("."), get_token()
    return "its answer quotes the token" if "Bearer" in line or (token and token in line) else line
