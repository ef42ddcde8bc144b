"""What is wrong with the options of a CRI driver, but for those of its channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.drivers.options import OptionError, unknown_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.model.scalar import Scalar

OPTIONS: Final = ("endpoint", "image", "snapshotter", "channel", "channel_address")
#: What each text names, for the message when there is none.
TEXTS: Final[Mapping[str, str]] = {
    "endpoint": "unix:///PATH of a CRI socket",
    "image": "the name of an image that the server has",
    "snapshotter": "the name of a snapshotter of containerd",
}


def check_names(place: str, given: Mapping[str, Scalar]) -> None:
    """Refuse options that there are not, and those of another type.

    Raises:
        OptionError: the first that is wrong.
    """
    for name, value in given.items():
        if name not in OPTIONS:
            raise unknown_option(f"{place}.{name}", OPTIONS)
        if name in TEXTS and (not isinstance(value, str) or not value):
            raise OptionError(f"{place}.{name}", f"expected {TEXTS[name]}", value=value)


def check_server(
    place: str, given: Mapping[str, Scalar], *, has_endpoint: bool, image: object
) -> None:
    """Refuse what would do nothing with the server that is taken, and what it lacks.

    Raises:
        OptionError: the first that is of no use.
    """
    idle, why = (
        ("snapshotter", "means nothing with a server of yours, which has its own")
        if has_endpoint
        else ("image", "means nothing without endpoint: a private containerd has the guest's image")
    )
    if idle in given:
        raise OptionError(f"{place}.{idle}", why, value=given[idle], needs=("endpoint",))
    if has_endpoint and not image:
        expected = f"expected {TEXTS['image']}: a server of yours needs one"
        raise OptionError(f"{place}.image", expected, hint="the guest is bound into it")
