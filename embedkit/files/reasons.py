"""What errors of the system and of obstore say, in one line."""

from __future__ import annotations

import re

# where a client without credentials asks the machine for some
_METADATA_HOSTS = ("//169.254.169.254", "//169.254.170.2", "//metadata.google.internal")
# what stands for the whole, the better first
_TOLD = (
    (r"non-2xx status code: (\d+ [A-Z][A-Za-z' -]*)", "the server answers "),
    (r'(?:message|error): "([^"]+)"', ""),
)


def reason(text: str) -> str:
    """Return in one line what an error of obstore says over fifty.

    Parameters
    ----------
    text : str
        Its message: one line, then the answer of the server, then all causes.

    Returns
    -------
    str
        What the server answered, else its status, else the innermost cause, else the
        first line.

    Examples
    --------
    >>> reason("404: <Code>NoSuchKey</Code><Message>There is no such key.</Message>")
    'There is no such key. (NoSuchKey)'
    """
    if any(host in text for host in _METADATA_HOSTS):
        return (
            "no credentials found: set the environment variables of its object store, like "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    answer = re.search(
        r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL
    )
    if answer:
        return _line(f"{answer[2]} ({answer[1]})")
    for pattern, told in _TOLD:
        found = re.search(pattern, text)
        if found:
            return told + _line(found[1])
    if "TimedOut" in text:
        return "the server does not answer"
    return _line(text.partition("\n\nDebug source")[0])


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:297]}..."


def said(error: BaseException) -> str:
    """Return what an error of the system says, without its number."""
    said = error.strerror if isinstance(error, OSError) else None
    return " ".join(str(said or error).split())
