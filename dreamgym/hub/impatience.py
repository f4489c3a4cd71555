"""An end to the client's waiting: it would sleep through rate limits and servers that are down, for minutes, and has no setting for it.

It says so to its log first, and to nobody else, so that is where we listen. Where its log is switched off it waits as ever.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["GaveUpError", "impatient"]

_HTTP, _DOWNLOAD = "huggingface_hub.utils._http", "huggingface_hub.file_download"
_ABOUT_TO_SLEEP = re.compile(r"Rate limited\. Waiting (?P<seconds>\d+)|Retrying in ")
_FAILED = re.compile(r"HTTP Error (?P<status>\d{3}) thrown|^'(?P<error>.*)' thrown", re.DOTALL)
_TOO_MANY = "it answered 429"
_STOOD_STILL = re.compile(r"Error while downloading from .*time(d )?out", re.IGNORECASE | re.DOTALL)


class GaveUpError(Exception):
    """The client was about to wait. reason: what it was that failed; limited: a limit of rates, for `wait` seconds if it said how many."""

    def __init__(self, reason: str, *, limited: bool = False, wait: int | None = None) -> None:
        super().__init__(reason)
        self.limited, self.wait = limited, wait


@contextmanager
def impatient() -> Iterator[None]:
    """Calls of the client in this thread raise GaveUpError where they would back off, or try once more to read what stands still."""
    listener = _Listener()
    loggers = [logging.getLogger(name) for name in (_HTTP, _DOWNLOAD)]
    for logger in loggers:
        logger.addFilter(listener)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(listener)


class _Listener(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.thread, self.reason = threading.get_ident(), "no answer"

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep what failed last; end the call before the client sleeps. Other threads may wait as they like."""
        if record.thread != self.thread:
            return True
        text = record.getMessage()
        if failed := _FAILED.search(text):
            self.reason = f"it answered {failed['status']}" if failed["status"] else failed["error"]
        if sleeping := _ABOUT_TO_SLEEP.match(text):
            wait = sleeping["seconds"]
            limited = wait is not None or self.reason == _TOO_MANY
            raise GaveUpError(self.reason, limited=limited, wait=None if wait is None else int(wait))
        if _STOOD_STILL.match(text):
            raise GaveUpError("nothing more arrived")
        return True
