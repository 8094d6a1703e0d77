"""What may be printed: ids and names come from files, and a terminal obeys control codes wherever they come from."""


def printable(text: str) -> str:
    """The text with its control codes, line ends and lone surrogates written out: an escape is shown as \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
