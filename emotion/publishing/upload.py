"""A published classifier's folder on its way to the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download

from emotion.checkpoints import hub, portable
from emotion.errors import UserError

MADE_BY_THE_HUB = ".gitattributes"
ONNX, LABELS, CARD = "model.onnx", "label_map.json", "README.md"
FILES = (CARD, hub.CONFIG, hub.WEIGHTS, ONNX, LABELS)
"""All that ever leaves a folder; ONNX alone may be missing."""


def check(repo: str) -> None:
    """Refuse what could not be uploaded, before anything is made.

    Raises:
        UserError: no token, or none that the Hub takes; the Hub is out of reach; something else lies there.
    """
    if not get_token():
        raise UserError(
            "there is no token for the Hugging Face Hub, and nothing was made. Set HF_TOKEN or log in with hf auth "
            "login (a token that may write), or make the folder alone: dry_run=true."
        )
    with hub.asking(repo):
        HfApi().whoami()
    _lying_there(repo)


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Lay the folder's files in the repository, made where it is not there yet, in one commit; its address.

    Those of ours that the folder has not, such as a former ONNX file, are removed in the same commit.

    Raises:
        UserError: the Hub refuses, or is out of reach.
    """
    there = _lying_there(repo)
    mine = [name for name in FILES if (folder / name).is_file()]
    additions = [CommitOperationAdd(name, folder / name) for name in mine]
    stale = [CommitOperationDelete(name) for name in FILES if name in there and name not in mine]
    with hub.asking(repo):
        address = HfApi().create_repo(repo, private=private, exist_ok=True)
    with hub.asking(repo):  # create_commit, as upload_folder may make several
        HfApi().create_commit(repo, [*additions, *stale], commit_message="A classifier, written by emotion.publish")
    return str(address)


def _lying_there(repo: str) -> set[str]:
    """The repository's files, none where it is not there yet.

    Raises:
        UserError: they are not of a classifier of ours.
    """
    try:
        info = hub.listed(repo)
    except hub.Missing:
        return set()
    names = {one.rfilename for one in info.siblings or []} - {MADE_BY_THE_HUB}
    if not names:
        return names
    found = ", ".join(sorted(names)[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    other = UserError(
        f"hub:{repo} holds something else, which is left alone: found {found}; expected an empty repository, or one "
        f"that python -m emotion.publish filled. Give another repo=OWNER/NAME."
    )
    sizes = {one.rfilename: one.size for one in info.siblings or []}
    if not 0 < (sizes.get(hub.CONFIG) or 0) <= hub.LARGEST[hub.CONFIG]:
        raise other
    with hub.asking(repo):
        config = Path(hf_hub_download(repo, hub.CONFIG, revision=info.sha))
    try:
        portable.description(config.with_name(hub.WEIGHTS))
    except UserError:
        raise other from None
    return names
