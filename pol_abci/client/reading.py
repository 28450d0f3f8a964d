"""JSON as CometBFT writes it, read strictly: what does not fit is an `UnexpectedAnswer`.

CometBFT writes 64-bit integers as decimal strings, bytes as base64, hashes as upper-case hex and
times as RFC 3339 with nanoseconds, which are taken to whole milliseconds by floor (protocol
section 8).
"""

from __future__ import annotations

import base64
import binascii
import calendar
import re
from datetime import datetime
from typing import Any

from pol_abci.client.answers import BlockHeader, TxEvent
from pol_abci.client.rpc_errors import BlockPruned, RpcError, TxInCache, UnexpectedAnswer

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_IN_CACHE = "tx already exists in cache"
_PRUNED = re.compile(r"height (\d+) is not available, lowest height is (\d+)", re.ASCII)
_MISSING = object()


def unwrap(url: str, method: str, answer: Any) -> Any:
    """Return the result in a JSON-RPC answer, or raise the error in it."""
    if not isinstance(answer, dict) or (answer.get("error") is None and "result" not in answer):
        raise UnexpectedAnswer(f"{url} answered {method} with JSON that is not JSON-RPC")
    error = answer.get("error")
    if error is None:
        return answer["result"]
    if not isinstance(error, dict):
        raise UnexpectedAnswer(f"{url} answered {method} with an error that is not JSON-RPC")
    detail = error.get("data") or error.get("message") or f"error {error.get('code')}"
    if detail == _IN_CACHE:
        raise TxInCache(f"the node at {url} has this transaction already")
    if (pruned := _PRUNED.fullmatch(str(detail))) is not None:
        raise BlockPruned(
            f"the node at {url} has no block {pruned[1]} any more, or never had it: its oldest is "
            f"{pruned[2]}. Ask a node that keeps them all (keep_blocks = 0 in its pol.toml)"
        )
    raise RpcError(f"the node at {url} refused {method}: {detail}")


def parse_header(url: str, header: Any) -> BlockHeader:
    """Read a header as CometBFT writes it to JSON."""
    reading = Reading(url, "header", header)
    return BlockHeader(
        chain_id=reading.text("chain_id"),
        height=reading.integer("height"),
        time_ms=reading.time_ms("time"),
        app_hash=reading.hex("app_hash"),
        proposer=reading.hex("proposer_address"),
    )


def parse_time_ms(text: str) -> int:
    """Return RFC 3339 text in UTC as whole milliseconds since 1970, by floor.

    Raises
    ------
    ValueError
        When it is not such a time.
    """
    return parse_time_ns(text) // 10**6


def parse_time_ns(text: str) -> int:
    """Return RFC 3339 text in UTC as nanoseconds since 1970.

    Raises
    ------
    ValueError
        When it is not such a time.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time")
    moment, fraction = match.groups(default="")
    seconds = calendar.timegm(datetime.fromisoformat(moment).timetuple())
    return seconds * 10**9 + int(fraction.ljust(9, "0"))


class Reading:
    """A JSON object of an answer, read field by field; `what` names it in errors."""

    def __init__(self, url: str, what: str, content: Any) -> None:
        self._url, self._what = url, what
        if not isinstance(content, dict):
            raise self._unexpected("is not an object")
        self._content = content

    def _unexpected(self, why: str) -> UnexpectedAnswer:
        return UnexpectedAnswer(f"{self._url} sent an answer that CometBFT's is not: "
                                f"{self._what} {why}")  # fmt: skip

    def value(self, name: str, default: Any = _MISSING) -> Any:
        """A field as it is; null counts as absent."""
        value = self._content.get(name)
        if value is None:
            if default is _MISSING:
                raise self._unexpected(f"has no {name}")
            return default
        return value

    def at(self, name: str) -> Reading:
        """An object in a field."""
        return Reading(self._url, f"{self._what}.{name}", self.value(name))

    def items(self, name: str) -> tuple[Reading, ...]:
        """A list of objects, empty when it is absent."""
        value = self.value(name, [])
        if not isinstance(value, list):
            raise self._unexpected(f"has {name} that is no list")
        return tuple(Reading(self._url, f"{self._what}.{name}", item) for item in value)

    def text(self, name: str, default: Any = _MISSING) -> str:
        """A text."""
        value = self.value(name, default)
        if not isinstance(value, str):
            raise self._unexpected(f"has {name} that is no text")
        return value

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._unexpected(f"has {name} that is neither true nor false")
        return value

    def integer(self, name: str, default: Any = _MISSING) -> int:
        """A number, or text with a number as CometBFT writes those of 64 bits."""
        value = self.value(name, default)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value, re.ASCII):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self._unexpected(f"has {name} that is no integer")

    def time_ms(self, name: str) -> int:
        """A time in whole milliseconds since 1970, by floor."""
        return self.time_ns(name) // 10**6

    def time_ns(self, name: str) -> int:
        """A time in nanoseconds since 1970."""
        try:
            return parse_time_ns(self.text(name))
        except ValueError as error:
            raise self._unexpected(f"has {name} that is no time") from error

    def hex(self, name: str) -> bytes:
        """Bytes written in hexadecimal."""
        try:
            return bytes.fromhex(self.text(name))
        except ValueError as error:
            raise self._unexpected(f"has {name} that is not hexadecimal") from error

    def base64(self, name: str) -> bytes:
        """Bytes; CometBFT leaves empty ones out, or writes null."""
        return self._decode(name, self.text(name, ""))

    def base64_list(self, name: str) -> list[bytes]:
        """A list of bytes, empty when it is absent."""
        value = self.value(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._unexpected(f"has {name} that is no list of texts")
        return [self._decode(name, item) for item in value]

    def _decode(self, name: str, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._unexpected(f"has {name} that is not base64") from error

    def voted(self, name: str) -> tuple[int, int]:
        """Power that voted and power of all, of a text as `BA{4:xx__} 50/100 = 0.50`."""
        match = re.fullmatch(r"BA\{.*\} (\d+)/([1-9]\d*) = .*", self.text(name), re.ASCII)
        if match is None:
            raise self._unexpected(f"has {name} that counts no votes")
        return int(match[1]), int(match[2])

    def header(self, name: str) -> BlockHeader:
        """A header."""
        return parse_header(self._url, self.value(name))

    def events(self, name: str = "events") -> tuple[TxEvent, ...]:
        """Events of the application."""
        return tuple(
            TxEvent(
                item.text("type"),
                tuple(
                    (pair.text("key"), pair.text("value", "")) for pair in item.items("attributes")
                ),
            )
            for item in self.items(name)
        )
