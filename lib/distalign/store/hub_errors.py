"""What the hub's client says of a failed request, as a message with a way out. No token is in any of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from distalign.errors import UserError

ELSEWHERE = (
    "Where there is no network, run `snakemake fetch` once where there is one, with the same HF_HOME, or put the files "
    "into a directory and name that in the preset."
)


class Unreachable(UserError):
    """There is no way to the hub, or it is out of order."""


@contextmanager
def explained(model: str, revision: str, what: str) -> Iterator[None]:
    """Make `UserError` of the errors of a request for `what` (a file, or the list of them) of a model.

    Raises:
        Unreachable: offline, no network, or the hub is out of order.
        UserError: everything else that is wrong with the request or its answer.
    """
    try:
        yield
    except (HTTPError, OSError, RuntimeError) as error:
        raise _told(error, f"{model} at {revision[:12]}", f"{constants.ENDPOINT}/{model}", what) from error


def _told(error: Exception, name: str, page: str, what: str) -> UserError:
    if isinstance(error, GatedRepoError):
        return UserError(
            f"{name}: access is restricted. Accept the licence at {page} with your account, and set HF_TOKEN to a "
            "token of that account that may read it."
        )
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{name}: the repository is there, but not this revision; {page}/commits/main lists them.")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            f"{name}: no such repository at {page}, or a private one. Check the name; for a private one, set HF_TOKEN "
            "to a token that may read it."
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        kind = UserError if status < 500 else Unreachable
        hint = "Is HF_TOKEN valid?" if status in (401, 403) else "Try again later."
        return kind(f"{name}: {constants.ENDPOINT} answered {status} for {what}. {hint}")
    if isinstance(error, OfflineModeIsEnabled):
        return Unreachable(f"{name}: HF_HUB_OFFLINE is set, and {what} is not in the cache. {ELSEWHERE}")
    if isinstance(error, (HTTPError, LocalEntryNotFoundError, ConnectionError)):
        return Unreachable(
            f"{name}: {constants.ENDPOINT} cannot be reached for {what} ({type(error).__name__}). Check the network "
            f"and HF_ENDPOINT and run again: what is complete is kept. {ELSEWHERE}"
        )
    if isinstance(error, RuntimeError):  # hf_xet, which has no errors of its own for this
        return UserError(
            f"{name}: {what} could not be downloaded by the hub's Xet protocol. Run again: what is complete is kept. "
            "With HF_HUB_DISABLE_XET=1 it comes by plain HTTP."
        )
    if "Consistency check failed" in str(error):
        return UserError(f"{name}: {what} came cut off. Run again: what is complete is kept.")
    return UserError(f"{name}: {what} could not be put into the cache {constants.HF_HUB_CACHE} ({error}).")
