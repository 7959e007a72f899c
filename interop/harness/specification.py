"""Examples in hex and tables of docs/wire.md, read from the document itself."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "wire.md"


def example(name):
    """The bytes of the fenced block `hex NAME`.

    In a line, everything from `;` on is a comment, and `00*512` is the byte 00 repeated 512 times.
    """
    text = DOCUMENT.read_text(encoding="utf-8")
    block = re.search(rf"^```hex {re.escape(name)}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if block is None:
        raise KeyError(f"wire.md has no example `{name}`")
    return bytes_of(block[1])


def bytes_of(text):
    """The bytes that the text of an example stands for."""
    words = (word for line in text.splitlines() for word in line.split(";")[0].split())
    parts = (word.partition("*") for word in words)
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in parts)


def table(name):
    """The rows of the Markdown table that follows the comment `table: NAME`, as lists of cells."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = lines.index(f"<!-- table: {name} -->") + 1
    while not lines[start].startswith("|"):
        start += 1
    rows = []
    for line in lines[start + 2 :]:  # the header and its rule are not rows
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip().strip("|").split("|")])
    return rows
