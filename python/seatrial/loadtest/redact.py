"""What is shown and kept of a load is without its passwords, wherever they were given."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from seatrial.loadgen import LoadRequest

#: Settings of a protocol that nobody is to read in a result.
SECRET_OPTIONS: Final = frozenset({"auth"})
NOT_KEPT: Final = "(not kept)"


def without_secrets(request: LoadRequest) -> LoadRequest:
    """Returns the request as it may be shown and kept."""
    options = dict(request.options)
    for name in SECRET_OPTIONS & options.keys():
        options[name] = NOT_KEPT
    return dataclasses.replace(request, options=options)


def without_passwords(urls: str) -> str:
    """Returns URLs, with blanks between them, as they may be shown and kept."""
    return " ".join(_masked(url) for url in urls.split(" "))


def _masked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    login, at, address = rest.rpartition("@")
    if not at or "/" in login:
        return url
    user = login.partition(":")[0]
    return f"{scheme}{separator}{user}:***@{address}"
