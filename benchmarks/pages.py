"""Tables inside pages: what stands between a table's mark and its end is made anew from records, and nothing of it is typed by hand."""

from __future__ import annotations

import re

__all__ = ["END", "written"]

END = "<!-- /results -->"


def written(text: str, start: str, lines: list[str]) -> str:
    """`text` with the table behind its mark made anew."""
    return re.sub(f"{re.escape(start)}.*?{re.escape(END)}", lambda _: "\n".join([start, *lines, END]), text, flags=re.DOTALL)
