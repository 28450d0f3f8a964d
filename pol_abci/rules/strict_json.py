"""JSON objects read to the last key: what a chain is made from must not be open to guesses."""

from __future__ import annotations

import re
from typing import Any

from pol_abci.rules.errors import GenesisError

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class Section:
    """One object of a genesis, taken apart key by key; every fault names its key.

    Each key is taken once with what it must be; `close` refuses the keys that nobody took. All
    methods raise GenesisError.
    """

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise GenesisError(f"{path}: give an object")
        self.path = path
        self._rest: dict[Any, Any] = dict(value)

    def close(self) -> None:
        """Refuse keys that are not part of the format."""
        if self._rest:
            unknown = ", ".join(sorted(str(key) for key in self._rest))
            raise GenesisError(f"{self.path}: take out what is not part of a genesis: {unknown}")

    def take_section(self, key: str) -> Section:
        """An object."""
        return Section(self._take(key), self._name(key))

    def take_sections(self, key: str) -> tuple[Section, ...]:
        """A list of objects."""
        items = self._take_list(key)
        return tuple(Section(item, f"{self._name(key)}[{i}]") for i, item in enumerate(items))

    def take_integer(self, key: str, low: int, high: int) -> int:
        """A JSON integer, low <= value <= high."""
        return self._check_integer(self._take(key), self._name(key), low, high)

    def take_integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """A list of JSON integers, each low <= value <= high."""
        name = self._name(key)
        return tuple(
            self._check_integer(item, f"{name}[{i}]", low, high)
            for i, item in enumerate(self._take_list(key))
        )

    def take_amount(self, key: str, high: int) -> int:
        """Base units as a decimal string: not every reader of JSON keeps 64-bit integers."""
        text = self.take_text(key)
        if not _DECIMAL.fullmatch(text) or int(text) > high:
            raise GenesisError(f'{self._name(key)}: give "0" to "{high}" as a decimal string')
        return int(text)

    def take_bytes(self, key: str, length: int) -> bytes:
        """`length` bytes as lower-case hexadecimal."""
        text = self.take_text(key)
        if not re.fullmatch(rf"[0-9a-f]{{{2 * length}}}", text):
            raise GenesisError(f"{self._name(key)}: give {2 * length} lower-case hex digits")
        return bytes.fromhex(text)

    def take_bytes_or_null(self, key: str, length: int) -> bytes | None:
        """`length` bytes as lower-case hexadecimal, or null for none."""
        if key in self._rest and self._rest[key] is None:
            return self._take(key)  # type: ignore[no-any-return]  # just seen to be None
        return self.take_bytes(key, length)

    def take_text(self, key: str) -> str:
        """A string that is not empty."""
        value = self._take(key)
        if not isinstance(value, str) or not value:
            raise GenesisError(f"{self._name(key)}: give a string")
        return value

    def take_choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of several words."""
        value = self.take_text(key)
        if value not in choices:
            raise GenesisError(f"{self._name(key)}: give one of {', '.join(choices)}")
        return value

    def take_flag(self, key: str) -> bool:
        """True or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise GenesisError(f"{self._name(key)}: give true or false")
        return value

    def fail(self, key: str, reason: str) -> GenesisError:
        """The error that says what is wrong with a key, to be raised."""
        return GenesisError(f"{self._name(key)}: {reason}")

    def _name(self, key: str) -> str:
        return f"{self.path}.{key}"

    def _take(self, key: str) -> Any:
        if key not in self._rest:
            raise GenesisError(f"{self._name(key)}: missing")
        return self._rest.pop(key)

    def _take_list(self, key: str) -> list[Any]:
        value = self._take(key)
        if not isinstance(value, list):
            raise GenesisError(f"{self._name(key)}: give a list")
        return value

    @staticmethod
    def _check_integer(value: Any, name: str, low: int, high: int) -> int:
        # JSON's true is an int to Python.
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise GenesisError(f"{name}: give an integer from {low} to {high}")
        return value
