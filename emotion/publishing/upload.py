"""Upload of a folder with a classifier to the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download

from emotion.checkpoints import hub, portable
from emotion.errors import UserError, first_few

HUB_OWN_FILE = ".gitattributes"
ONNX, LABELS, CARD = "model.onnx", "label_map.json", "README.md"
FILES = (CARD, hub.CONFIG, hub.WEIGHTS, ONNX, LABELS)
"""The only files that are uploaded; ONNX is optional."""


def check_access(repo: str) -> None:
    """Check token and repository before anything is written.

    Raises:
        UserError: There is no valid token, the Hub cannot be reached, or the repository contains something else.
    """
    if not get_token():
        raise UserError(
            "there is no token for the Hugging Face Hub; nothing was written. Set HF_TOKEN or run hf auth login (with "
            "a token that can write), or only write the folder: dry_run=true."
        )
    with hub.hub_errors(repo):
        HfApi().whoami()
    _existing_files(repo)


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Upload the folder's files in one commit and return the repository's address.

    The repository is created if necessary. Files of a previous upload that the folder lacks are deleted in the same
    commit.

    Raises:
        UserError: The Hub refuses, or cannot be reached.
    """
    existing = _existing_files(repo)
    names = [name for name in FILES if (folder / name).is_file()]
    additions = [CommitOperationAdd(name, folder / name) for name in names]
    deletions = [CommitOperationDelete(name) for name in FILES if name in existing and name not in names]
    with hub.hub_errors(repo):
        address = HfApi().create_repo(repo, private=private, exist_ok=True)
    with hub.hub_errors(repo):  # upload_folder may make several commits
        HfApi().create_commit(repo, [*additions, *deletions], commit_message="Upload a classifier with emotion.publish")
    return str(address)


def _existing_files(repo: str) -> set[str]:
    """Return the names of the repository's files; none if it does not exist.

    Raises:
        UserError: They are not those of a classifier of this package.
    """
    try:
        info = hub.model_info(repo)
    except hub.RepositoryNotFound:
        return set()
    sizes = {file.rfilename: file.size for file in info.siblings or [] if file.rfilename != HUB_OWN_FILE}
    if not sizes:
        return set()
    found = first_few(sorted(sizes), 8)
    foreign = UserError(
        f"hub:{repo} contains something else and is left unchanged: found {found}; expected an empty repository, or "
        f"one that python -m emotion.publish filled. Choose another repo=OWNER/NAME."
    )
    if not 0 < (sizes.get(hub.CONFIG) or 0) <= hub.MAX_BYTES[hub.CONFIG]:
        raise foreign
    with hub.hub_errors(repo):
        config = Path(hf_hub_download(repo, hub.CONFIG, revision=info.sha))
    try:
        portable.read_description(config.with_name(hub.WEIGHTS))
    except UserError:
        raise foreign from None
    return set(sizes)
