"""Questions to the Hub that end in time: who asks, with which token, and for how long we wait."""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dreamgym.errors import require
from dreamgym.formats.strict_json import escape
from dreamgym.hub.failures import Asked, is_passing, scrubbed_logs
from dreamgym.hub.impatience import GaveUpError
from dreamgym.hub.repository import Access, Repo

__all__ = ["PATIENCE", "asked_of", "huggingface", "twice", "user_of", "while_it_moves", "within"]

T = TypeVar("T")
Outcomes = queue.SimpleQueue[tuple[T | None, BaseException | None]]

# Seconds for one question; with one repetition of what failed fast, every failure ends within 15. Requests themselves are told twice that,
# so that the limit here is always the first to be reached, and it says how long nobody answered.
PATIENCE = 10.0
FAST = 2.0  # seconds


def huggingface(purpose: str) -> Any:
    """huggingface_hub, with its settings as an attribute. Raises MissingDependencyError."""
    require("huggingface_hub.constants", extra="hub", purpose=purpose)
    return require("huggingface_hub", extra="hub", purpose=purpose)


def within(seconds: float, question: Callable[[], T]) -> T:
    """Ask in a thread of its own and wait no longer: the client counts each wait alone, and looking up a name has no limit at all."""
    try:
        return _outcome(_begun(question), seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.3g} s") from None


def twice(seconds: float, question: Callable[[], T]) -> T:
    """As `within`, and once more at once if it failed fast for a passing reason. For questions that may be repeated."""
    started = time.monotonic()
    try:
        return within(seconds, question)
    except Exception as error:
        if not is_passing(error) or time.monotonic() - started >= FAST:
            raise
    return within(seconds, question)


def while_it_moves(seconds: float, bar: type, transfer: Callable[[type], T]) -> T:
    """transfer(bar), a class of progress bars, in a thread of its own, given up when no bar has moved for that long.

    For hf_xet, which waits for minutes by itself and listens to nobody. Raises GaveUpError.
    """
    moved = time.monotonic()

    class Watched(bar):  # type: ignore[misc]
        def update(self, n: float | None = 1) -> Any:
            nonlocal moved
            moved = time.monotonic()
            return super().update(n)

    outcomes = _begun(lambda: transfer(Watched))
    while (left := moved + seconds - time.monotonic()) > 0:
        try:
            return _outcome(outcomes, left)
        except queue.Empty:
            continue
    raise GaveUpError("nothing more arrived")


def _begun(question: Callable[[], T]) -> Outcomes[T]:
    outcomes: Outcomes[T] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with scrubbed_logs():
                outcomes.put((question(), None))
        except BaseException as error:
            outcomes.put((None, error))

    threading.Thread(target=ask, name="dreamgym-hub", daemon=True).start()
    return outcomes


def _outcome(outcomes: Outcomes[T], seconds: float) -> T:
    """What came of it; raises what it raised, queue.Empty if nothing came in time."""
    answer, error = outcomes.get(timeout=seconds)
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def asked_of(hub: Any, repo: Repo, access: Access, repo_type: str, doing: str = "asking") -> Asked:
    """What is asked and by whom, for messages; hub is huggingface_hub."""
    chosen = access.cache_dir if access.cache_dir is not None else hub.constants.HF_HUB_CACHE
    return Asked(
        repo.repo_id,
        repo.revision,
        repo_type,
        endpoint=re.sub(r"//[^/@]*@", "//", str(hub.constants.ENDPOINT)).partition("?")[0].rstrip("/"),
        token=_token_in_use(hub, access.token),
        cache=escape(str(chosen)),
        doing=doing,
    )


def _token_in_use(hub: Any, given: str | None) -> str | None:
    """Which token is sent, never what it is."""
    if given:
        return "passed as token="
    if given is False or hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    if os.environ.get("HF_TOKEN", "").strip() or os.environ.get("HUGGING_FACE_HUB_TOKEN", "").strip():
        return "HF_TOKEN"
    return "stored by hf auth login" if hub.get_token() else None


def user_of(api: Any) -> str | None:
    """Whose token it is, for a message; whoever cannot be asked is not named."""
    try:
        return escape(str(within(PATIENCE / 4, api.whoami)["name"]))
    except Exception:
        return None
