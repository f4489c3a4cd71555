"""What went wrong with the Hub, in our errors and words: which of them it was, what to do next, and never a token or a signed URL.

The client's exceptions are told apart by the names of their classes. Its HTTP library, and with it half of the classes, changed its name
with each major version; and not every failure is an HfHubHTTPError, or even an OSError.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamgym.errors import DreamGymError, HubUnreachableError, ModelAccessError, ModelLoadError, ModelNotFoundError
from dreamgym.formats.strict_json import escape
from dreamgym.hub.impatience import GaveUpError

__all__ = ["Asked", "in_our_words", "is_passing", "kinds", "may_be_repeated", "offline", "scrubbed_logs"]

_BUNDLED_HINT = 'or use a bundled model: gym.make("dreamgym/Dream-CarRacing-v0").'
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_SECRETS = (
    (re.compile(r"(https?://[^\s?#'\"<>]*)[?#][^\s'\"<>]*"), r"\1"),  # the query of a signed URL is a key
    (re.compile(r"(https?://)[^\s/@'\"<>]*@"), r"\1"),  # user:password@
    (re.compile(r"hf_\w{4,}"), "hf_***"),
    (re.compile(r"(?i)(bearer|authorization:?)\s+\S+"), r"\1 ***"),
)
_NO_HUB = {"JSONDecodeError", "FileMetadataError"}  # a captive portal, or another server
_CLIENT_LOGGERS = ("huggingface_hub.file_download", "huggingface_hub.utils._http", "huggingface_hub.hf_api", "huggingface_hub.lfs")


@dataclass(frozen=True)
class Asked:
    """What was asked of the Hub, for the messages. token: which one is sent, None if none is."""

    repo_id: str
    revision: str | None = None
    repo_type: str = "model"
    endpoint: str = "https://huggingface.co"
    token: str | None = None
    cache: str = "~/.cache/huggingface/hub"
    doing: str = "asking"  # asking, downloading (of doing_what) or uploading
    doing_what: str = ""
    user: str | None = None  # whose token it is

    @property
    def page(self) -> str:
        """Where a browser finds the repository."""
        return f"{self.endpoint}/{'' if self.repo_type == 'model' else f'{self.repo_type}s/'}{self.repo_id}"

    @property
    def name(self) -> str:
        """The repository and the revision asked for."""
        return f"'{self.repo_id}' (revision '{self.revision or 'main'}')"


def kinds(error: BaseException) -> set[str]:
    """Names of the classes an exception belongs to."""
    return {cls.__name__ for cls in type(error).__mro__}


def scrub(text: str) -> str:
    """Text from the client or a server without what must not be printed: tokens, queries of URLs, control characters."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return escape(" ".join(text.split()))


def is_passing(error: BaseException) -> bool:
    """Whether asking again at once may help: connections that were reset, and servers that stumbled."""
    status = _status(error)
    if status is not None:
        return status in (408, 500, 502, 503, 504)
    return bool(kinds(error) & {"TransportError", "RemoteProtocolError", "NetworkError", "ReadError"}) and not kinds(error) & {
        "TimeoutException",
        "ProxyError",
    }


def may_be_repeated(error: BaseException) -> bool:
    """Whether a transfer that failed so is worth a second one: an expired address, a server that stumbled; not a limit of rates."""
    for link in _chain(error):
        if isinstance(link, GaveUpError):
            return not link.limited and re.search(r"answered|disconnected|reset", str(link)) is not None
    return any("HfHubHTTPError" in kinds(link) and _status(link) != 429 for link in _chain(error))


def in_our_words(error: BaseException, asked: Asked) -> BaseException:
    """The exception to raise from `error`; the text of `error` and its causes is scrubbed in place, since tracebacks show it too."""
    chain = list(_chain(error))
    for link in chain:
        if link.args and isinstance(link.args[0], str):
            link.args = (_scrubbed_lines(link.args[0]), *link.args[1:])
    if isinstance(error, DreamGymError):
        return error
    full = _of_the_disk(error, asked)
    if full is not None:
        return full
    for link in chain:
        if "DisabledRepoError" in kinds(link):
            return ModelAccessError(f"'{asked.repo_id}' has been disabled by Hugging Face: {asked.page}")
    for link in chain:
        answered = _answered(link, asked)
        if answered is not None:
            return answered
    if "HFValidationError" in kinds(error):
        return ValueError(f"{scrub(str(error))}: expected user/repo")
    return _unreachable(chain, asked)


# ---- the Hub answered -------------------------------------------------------------------------------------------------------


def _answered(error: BaseException, asked: Asked) -> Exception | None:
    """The Hub's own answers, most special first: a gated repository is also one that was not found."""
    names, status = kinds(error), _status(error)
    if "GatedRepoError" in names:
        return ModelAccessError(f"'{asked.repo_id}' is gated: ask for access at {asked.page}, then: hf auth login{_who(asked)}")
    if "RepositoryNotFoundError" in names:
        return _not_found(asked)
    if "RevisionNotFoundError" in names:
        return ModelNotFoundError(f"'{asked.repo_id}' has no revision '{asked.revision or 'main'}'.")
    if status == 401:
        return ModelAccessError(_invalid_token(asked))
    if status == 403 and asked.doing != "downloading":
        return _forbidden(asked)
    if status == 412:
        return ModelLoadError(f"{asked.page}: someone pushed meanwhile; nothing was changed, run again")
    if status == 409:
        return ModelLoadError(f"{asked.page}: {scrub(str(error))}")
    if status == 429 or (isinstance(error, GaveUpError) and error.limited):
        return HubUnreachableError(f"{asked.endpoint}: rate limited, try again {_when(error)} (log in for a higher limit: hf auth login)")
    return None


def _not_found(asked: Asked) -> ModelNotFoundError:
    """Missing and private cannot be told apart: the Hub does not say which."""
    absent = f"no {asked.repo_type} '{asked.repo_id}' on {asked.endpoint}, or it is private. Check the name"
    if asked.token is None:
        return ModelNotFoundError(f"{absent}, or log in: hf auth login.{_folder_hint(asked)}")
    return ModelNotFoundError(f"{absent}; the token in use ({asked.token}) has no access.{_folder_hint(asked)}")


def _folder_hint(asked: Asked) -> str:
    """For somebody who meant a folder here, and mistyped it."""
    meant = asked.revision is None and Path(asked.repo_id).parent.is_dir()
    return f" A folder is written ./{asked.repo_id}; there is none with a model." if meant else ""


def _invalid_token(asked: Asked) -> str:
    if asked.token is None:
        return f"{asked.page}: nobody is logged in: hf auth login, or set HF_TOKEN"
    where, cure = {
        "HF_TOKEN": ("in HF_TOKEN", "unset HF_TOKEN"),
        "passed as token=": ("passed as token=", "leave it out"),
    }.get(asked.token or "", ("that hf auth login stored", "hf auth logout"))
    return f"the token {where} is not valid (it also blocks public {asked.repo_type}s): {cure} or hf auth login"


def _forbidden(asked: Asked) -> ModelAccessError:
    if asked.doing == "uploading":
        return ModelAccessError(
            f"may not write to {asked.page}{_who(asked)}: it needs a token with the right to write to '{asked.repo_id.split('/')[0]}'"
        )
    return ModelAccessError(f"may not read {asked.page}{_who(asked)}: the token lacks the right to read this repository")


def _who(asked: Asked) -> str:
    if asked.token is None:
        return " (no token was sent)"
    return f" (the token in use is {asked.token}{f', of {asked.user}' if asked.user else ''})"


def _when(error: BaseException) -> str:
    if isinstance(error, GaveUpError):
        return "later" if error.wait is None else f"in {error.wait} s"
    headers = getattr(getattr(error, "response", None), "headers", {})
    limit = re.search(r";\s*t\s*=\s*(\d{1,9})", headers.get("ratelimit", ""))
    after = re.fullmatch(r"\s*(\d{1,9})\s*", headers.get("retry-after", ""))
    found = limit or after
    return f"in {found[1]} s" if found else "later"


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


# ---- it did not -------------------------------------------------------------------------------------------------------------


def _unreachable(chain: list[BaseException], asked: Asked) -> Exception:
    names = set().union(*map(kinds, chain))
    status = next((found for link in chain if (found := _status(link)) is not None), None)
    if "xet-write-token" in " ".join(map(str, chain)) and status in (None, 404):
        return HubUnreachableError(f"{asked.endpoint}: this Hub has no Xet storage: set HF_HUB_DISABLE_XET=1 and run again")
    if "OfflineModeIsEnabled" in names:
        return offline(asked, "HF_HUB_OFFLINE=1")
    if asked.doing == "downloading" and (status is not None or not names & _NO_HUB):
        return HubUnreachableError(f"'{asked.repo_id}': {_broken_off(chain, status, asked.doing_what)}; run again")
    if names & _NO_HUB or (status is not None and status < 500):
        answer = f" (it answered {status})" if status is not None else ""
        return HubUnreachableError(
            f"{asked.endpoint} did not answer like a Hugging Face Hub{answer} (HF_ENDPOINT={asked.endpoint}, or a proxy or login page?)"
        )
    reason = f"it answered {status}" if status is not None else _reason(chain)
    if asked.doing == "uploading":
        return HubUnreachableError(f"{asked.endpoint} could not be reached ({reason}); run again")
    return not_cached(asked, f"the Hub {asked.endpoint} could not be reached ({reason})")


def _broken_off(chain: list[BaseException], status: int | None, what: str) -> str:
    """A download that began: nothing of it is left behind, the next one starts anew."""
    if status == 403:
        return f"download of {what} was refused twice (403: its signed address has expired)"
    if status is not None:
        return f"download of {what} failed twice (the server answered {status})"
    return f"download of {what} broke off ({_reason(chain)})"


def offline(asked: Asked, why: str) -> HubUnreachableError:
    """Nothing may be asked of the Hub, because of `why`, and the cache does not hold what is needed."""
    if asked.doing == "uploading":
        return HubUnreachableError(f"{why} forbids pushing to '{asked.repo_id}'.")
    return not_cached(asked, why)


def not_cached(asked: Asked, why: str) -> HubUnreachableError:
    """The cache does not hold it, and the Hub cannot be asked."""
    download = f"hf download {asked.repo_id}" + ("" if asked.repo_type == "model" else f" --repo-type {asked.repo_type}")
    hint = f", {_BUNDLED_HINT}" if asked.repo_type == "model" else "."
    return HubUnreachableError(
        f"{asked.name} is not in the cache ({asked.cache}) and {why}. Run once online: {download}{hint}{_folder_hint(asked)}"
    )


def _reason(chain: list[BaseException]) -> str:
    for link in chain:
        if isinstance(link, GaveUpError):
            return scrub(str(link))
    innermost = next((link for link in reversed(chain) if str(link)), chain[-1])
    text = scrub(str(innermost))
    return f"{type(innermost).__name__}: {text}" if text else type(innermost).__name__


# ---- other things -----------------------------------------------------------------------------------------------------------


def _of_the_disk(error: BaseException, asked: Asked) -> OSError | None:
    """A full or forbidden disk stays the OSError it is, but says where, how much and what helps."""
    if not isinstance(error, OSError) or error.errno not in _OF_THE_DISK or _status(error) is not None:
        return None
    where = error.filename or asked.cache
    what = f" while fetching {asked.doing_what} of '{asked.repo_id}'" if asked.doing_what else ""
    help_ = "set HF_HOME or cache_dir to another disk" + (", or: hf cache prune" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "")
    return OSError(error.errno, f"{error.strerror}{what}; {help_}", str(where))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _scrubbed_lines(text: str) -> str:
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


@contextmanager
def scrubbed_logs() -> Iterator[None]:
    """The client's warnings name the address it downloads from; while this is open they do so without its signature."""
    loggers = [logging.getLogger(name) for name in _CLIENT_LOGGERS]
    for logger in loggers:
        logger.addFilter(_scrub_record)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_scrub_record)


def _scrub_record(record: logging.LogRecord) -> Any:
    record.msg, record.args = _scrubbed_lines(record.getMessage()), ()
    return True
