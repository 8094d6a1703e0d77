"""What may be printed: ids and names come from files, and a terminal obeys control codes wherever they come from."""

import unicodedata

JOINERS = "\u00ad\u200c\u200d"  # soft hyphens, and what holds an emoji together


def printable(text: str) -> str:
    """The text with its control codes, line ends and lone surrogates written out: an escape is shown as \\x1b."""

    def harmless(c: str) -> bool:
        return c.isprintable() or c in JOINERS or unicodedata.category(c) == "Zs"  # such as blanks that don't break

    return "".join(c if harmless(c) else c.encode("unicode_escape").decode("ascii") for c in text)
