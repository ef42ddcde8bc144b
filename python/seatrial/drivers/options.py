"""What is wrong with an option of ``[driver.NAME]``, and drivers that take none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.model.scalar import Scalar

__all__ = ["OptionError", "TakesNoOptions", "unknown_option"]


class OptionError(ConfigError):
    """An option of a driver is unknown or has no meaning."""

    def __init__(
        self,
        where: str,
        expected: str,
        *,
        value: object = None,
        needs: Iterable[str] = (),
        hint: str | None = None,
    ) -> None:
        """Keep the place (``driver.NAME.OPTION``) apart from what was given and expected there.

        ``value`` None: it does not matter, or there is none. ``needs`` are options that this one
        hangs on: when they are wrong themselves, nothing can be said about it.
        """
        given = "" if value is None else f" = {value!r}"
        super().__init__(f"{where}{given}: {expected}", hint=hint)
        self.key = where.replace('"', "")
        self.expected = expected if value is None else f"got {value!r}; {expected}"
        self.needs = frozenset(needs)


def unknown_option(where: str, known: Iterable[str]) -> OptionError:
    """Say which options there are."""
    return OptionError(where, f"unknown option; known: {', '.join(known)}")


class TakesNoOptions:
    """A driver whose table in an experiment must be empty."""

    name: str

    def check_options(self, options: Mapping[str, Scalar]) -> None:
        """Refuse any.

        Raises:
            OptionError: there is one.
        """
        for option in options:
            raise OptionError(f"driver.{self.name}.{option}", f"{self.name} takes no options")
