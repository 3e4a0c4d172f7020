r"""Lines of commands cut into words as OpenSSH's sftp does it: quotes, backslashes, comments.

A word comes out as a pattern: what was quoted, and magic behind a backslash, has a backslash before it.
"""

from __future__ import annotations

_MAGIC = "*?[\\"


def split(line: str) -> list[str]:
    """Cut a line into words.

    Raises:
        ValueError: a quotation is not closed, or the line ends with a backslash.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    characters = iter(line)
    for character in characters:
        if quote:
            if character == quote:
                quote = ""
                continue
            text = character
            if character == "\\":
                following = next(characters, "")
                # In quotes a backslash is itself, but before a quote or another backslash.
                text = following if following in {quote, "\\"} else "\\" + following
            word = (word or "") + escaped(text)
        elif character in "\"'":
            quote, word = character, word or ""
        elif character == "\\":
            following = next(characters, "")
            if not following:
                raise ValueError("the line ends with a backslash")
            word = (word or "") + escaped(following)
        elif character.isspace():
            if word is not None:
                words.append(word)
            word = None
        elif character == "#" and word is None:
            break
        else:
            word = (word or "") + character
    if quote:
        raise ValueError(f"a quotation is not closed: {quote}")
    return words if word is None else [*words, word]


def escaped(text: str) -> str:
    """The pattern that means a text as it is."""
    return "".join("\\" + each if each in _MAGIC else each for each in text)


def escaped_word(pattern: str) -> str:
    """One word of a line that means this pattern."""
    return "".join("\\" + each if each.isspace() or each in "'\"#" else each for each in pattern)
