"""Download classifiers from the Hugging Face Hub, and report its errors as messages.

Only config.json and model.safetensors of a repository are read, both of one commit; neither can run code.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
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
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # the HTTP library that it uses

from emotion.checkpoints import portable
from emotion.errors import UserError, first_few

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

CONFIG, WEIGHTS = portable.CONFIG, "model.safetensors"
MAX_BYTES = {CONFIG: 4_000_000, WEIGHTS: 2_000_000_000}
"""Larger files are not downloaded."""

NAME = re.compile(r"(?P<repo>[a-zA-Z0-9][\w.-]*/\w([\w.-]*\w)?)(@(?P<revision>\w[\w./+-]*))?", re.ASCII)
TIMEOUT, ANSWER_SECONDS = 20.0, 4.0  # of a request; of a test whether the Hub can be reached
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


class HubUnreachable(UserError):
    """The Hub does not answer at the moment."""


class RepositoryNotFound(UserError):
    """The repository does not exist, or is private and the token cannot read it."""


def download(name: str) -> Path:
    """Return the cached weights of `owner/name` or `owner/name@revision`, with their description in the same folder.

    If the Hub is unreachable, the last download of that name is used, with a message on stderr.

    Raises:
        UserError: The repository does not exist or holds no classifier of this package.
    """
    repo, revision = parse_name(name)
    try:
        info = model_info(repo, revision)
    except HubUnreachable as error:
        cached = _cached(repo, revision)
        if cached is None:
            raise UserError(f"{error} The local cache has no copy of {_display(repo, revision)}.") from None
        if not constants.HF_HUB_OFFLINE:
            print(f"{error} Using the cached copy of commit {cached.parent.name}.", file=sys.stderr)
        return cached
    _check_files(_display(repo, revision), info)
    with hub_errors(repo, revision):
        config = Path(hf_hub_download(repo, CONFIG, revision=revision))  # not by commit, so that offline finds it
    if config.parent.name != info.sha:
        raise UserError(f"{_display(repo, revision)} changed during the download; try again.")
    try:
        portable.read_description(config.with_name(WEIGHTS))  # before the weights are downloaded
    except UserError as error:
        raise UserError(f"{_display(repo, revision)}: {error}") from error
    with hub_errors(repo, revision):
        return Path(hf_hub_download(repo, WEIGHTS, revision=info.sha))


def parse_name(name: str) -> tuple[str, str | None]:
    """Split `owner/name@revision` into repository and revision, which is None if not given.

    Raises:
        UserError: It is not the name of a repository.
    """
    match = NAME.fullmatch(name)
    if not match or ".." in name or "--" in match["repo"] or match["repo"].endswith(".git") or len(match["repo"]) > 96:
        raise UserError(f"{name!r} is not a repository name of the Hugging Face Hub; expected OWNER/NAME[@TAG].")
    return match["repo"], match["revision"]


def model_info(repo: str, revision: str | None = None) -> "ModelInfo":
    """Return the repository's commit and its files with their sizes.

    Raises:
        UserError: The repository does not exist or cannot be reached.
    """
    with hub_errors(repo, revision):
        return HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)


@contextmanager
def offline_if_unreachable(repo: str) -> Iterator[None]:
    """Use only cached files, without retries, unless the Hub answers within `ANSWER_SECONDS`."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            model_info(repo)
        except HubUnreachable:
            return
        except UserError:  # also an answer
            pass
        answers.append(True)

    thread = Thread(target=ask, daemon=True)  # resolving a name has no time limit of its own
    thread.start()
    thread.join(ANSWER_SECONDS)
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not answers
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def hub_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn the Hub's errors into UserErrors that contain no token."""
    try:
        yield
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        wrapped = isinstance(error, RuntimeError) and error.__cause__ is not None  # by the transfer of large files
        raise _user_error(error.__cause__ if wrapped else error, repo, revision) from None


def _user_error(error: BaseException | None, repo: str, revision: str | None) -> UserError:
    name = _display(repo, revision)
    match error:
        case GatedRepoError():
            return UserError(
                f"{name} is gated: request access at {constants.ENDPOINT}/{repo}, then set a token that has it "
                f"(HF_TOKEN, or hf auth login)."
            )
        case RepositoryNotFoundError():
            return RepositoryNotFound(
                f"{name}: no such repository, or a private one that the token cannot read. Check the name; the token "
                f"comes from HF_TOKEN or hf auth login."
            )
        case RevisionNotFoundError():
            return UserError(f"{name}: the repository has no branch, tag or commit {revision}.")
        case HfHubHTTPError(response=response, server_message=message):
            status, details = response.status_code, f": {_without_token(message)}" if message else ""
            if status >= 500:
                return HubUnreachable(f"{name}: the Hub answers {status}; try again later.")
            token = " Use another token: HF_TOKEN, or hf auth login." if status in (401, 403) else ""
            return UserError(f"{name}: the Hub refuses with {status}{details}.{token}")
        case OfflineModeIsEnabled():
            return HubUnreachable(f"{name}: HF_HUB_OFFLINE is set.")
        case httpx.HTTPError():
            return HubUnreachable(f"{name}: the Hub cannot be reached ({_without_token(error)}).")
    return UserError(f"{name}: {type(error).__name__}: {_without_token(error)}.")


def _check_files(name: str, info: "ModelInfo") -> None:
    """Raise UserError if a file is missing or too large."""
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    if missing := [file for file in MAX_BYTES if file not in sizes]:
        pickles = [file for file in sizes if file.endswith(PICKLES)]
        never = f" {', '.join(pickles[:3])}: pickles are never loaded." if pickles else ""
        raise UserError(
            f"{name} has no {' and no '.join(missing)}; found {first_few(sorted(sizes), 8) or 'nothing'}.{never} "
            f"Expected a repository filled by python -m emotion.publish."
        )
    for file, limit in MAX_BYTES.items():
        size = sizes[file]
        if size is None or size > limit:
            shown = "an unknown number of" if size is None else f"{size:,}"
            raise UserError(f"{name}: {file} has {shown} bytes, expected at most {limit:,}. It was not downloaded.")


def _cached(repo: str, revision: str | None) -> Path | None:
    """Return the weights of the last download of that name, if any."""
    try:
        config = Path(hf_hub_download(repo, CONFIG, revision=revision, local_files_only=True))
        return Path(hf_hub_download(repo, WEIGHTS, revision=config.parent.name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _display(repo: str, revision: str | None) -> str:
    return f"hub:{repo}" + (f"@{revision}" if revision else "")


def _without_token(message: object) -> str:
    """Return the first line of a message, or a replacement if it quotes the token."""
    line, token = (str(message).strip() or type(message).__name__).splitlines()[0].rstrip("."), get_token()
    return "its answer quotes the token" if "Bearer" in line or (token and token in line) else line
