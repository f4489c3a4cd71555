"""Questions to the Hub that end in time: who asks, with which token, and for how long we wait."""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from dreamgym.formats.strict_json import escape
from dreamgym.hub.failures import Asked, scrubbed_logs
from dreamgym.hub.repository import Access, Repo

__all__ = ["PATIENCE", "asked_of", "user_of", "within"]

T = TypeVar("T")

PATIENCE = 10.0  # seconds for one question; with one repetition of what failed fast, every failure ends within 15


def within(seconds: float, question: Callable[[], T]) -> T:
    """Ask in a thread of its own and wait no longer: the client counts each wait alone, and looking up a name has no limit at all."""
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with scrubbed_logs():
                answers.put((question(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=ask, name="dreamgym-hub", daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
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
