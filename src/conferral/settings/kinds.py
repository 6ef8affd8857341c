# SPDX-License-Identifier: Apache-2.0
"""How one setting is read from text: a name, what is allowed, and a parser that refuses with a reason.

A parser raises `ValueError` with half a sentence ("is not a whole number"). It must never quote the
value: the caller does that, and only where the value is no secret. No I/O here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HIGHEST_PORT = 65535
_MAIL_ADDRESS = re.compile(r"[^@\s<>\x00-\x1f]+@[^@\s<>\x00-\x1f]+")
_NAMED_ADDRESS = re.compile(r"[^<>\x00-\x1f]*<(?P<address>[^<>]+)>")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
# A file, or a socket that the path or the query names.
_MAY_LACK_HOST = frozenset({"unix", "sqlite"})
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Kind:
    """A type of setting: the word of the reference, the allowed values, the parser."""

    name: str
    allowed: str
    parse: Callable[[str], Any]


@dataclass(frozen=True)
class Derived:
    """A default that depends on settings read before it; `shown` is its text in the reference."""

    shown: str
    compute: Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Described:
    """Everything the reference says about one setting."""

    kind: Kind
    default: Any
    meaning: str
    unit: str = ""
    secret: bool = False

    @property
    def shown_default(self) -> str:
        """The default as the reference prints it."""
        if isinstance(self.default, Derived):
            return self.default.shown
        if isinstance(self.default, bool):
            return "1" if self.default else "0"
        if isinstance(self.default, tuple):
            return ",".join(str(item) for item in self.default)
        return str(self.default)


def setting(kind: Kind, default: Any, meaning: str, *, unit: str = "", secret: bool = False) -> Any:
    """Declare one field of `Settings`; its environment variable is CONFERRAL_ and the field's name."""
    described = Described(kind, default, " ".join(meaning.split()), unit, secret=secret)
    return field(metadata={"described": described})


def choice(*words: str) -> Kind:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError("is not one of them")
        return text

    return Kind("word", " | ".join(words), parse)


def choices(*words: str) -> Kind:
    """A comma-separated selection of a few words, each at most once."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = _items(text)
        unknown = [word for word in chosen if word not in words]
        if unknown:
            raise ValueError(f"has an item this version does not know: {unknown[0]}")
        if len(set(chosen)) != len(chosen):
            raise ValueError("names an item twice")
        return chosen

    return Kind("list", "some of " + ", ".join(words), parse)


def whole(low: int, high: int) -> Kind:
    """A whole number between two bounds, both included."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise ValueError("is not a whole number")
        return int(_within(int(text), low, high))

    return Kind("whole number", f"{low} to {high}", parse)


def number(low: float, high: float) -> Kind:
    """A decimal number between two bounds, both included."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,9})?", text):
            raise ValueError("is not a number")
        return float(_within(float(text), low, high))

    return Kind("number", f"{low:g} to {high:g}", parse)


def url(*schemes: str, path: bool = True) -> Kind:
    """An absolute URL with one of these schemes; a trailing slash is dropped."""

    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError as error:
            raise ValueError("is not a URL") from error
        if parts.scheme not in schemes:
            raise ValueError("does not begin with an allowed scheme")
        if not parts.hostname and parts.scheme not in _MAY_LACK_HOST and "host=" not in parts.query:
            raise ValueError("names no host")
        if not path and (parts.path.strip("/") or parts.query or parts.fragment or parts.username):
            raise ValueError("must be scheme, host and port only")
        return text if path else text.rstrip("/")

    shown = ", ".join(f"{scheme}://" for scheme in schemes)
    return Kind("URL", shown if path else f"{shown} with host and port only", parse)


def _parse_cidrs(text: str) -> tuple[Network, ...]:
    networks = []
    for item in _items(text):
        try:
            networks.append(ipaddress.ip_network(item))
        except ValueError as error:
            raise ValueError(f"holds {item!r}, which is not a network") from error
    return tuple(networks)


def _parse_ports(text: str) -> tuple[int, ...]:
    return tuple(PORT.parse(item) for item in _items(text))


def _parse_switch(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError("is neither yes nor no")


def _parse_path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _parse_paths(text: str) -> tuple[Path, ...]:
    return tuple(_parse_path(item) for item in text.split(":") if item)


def _parse_sender(text: str) -> str:
    named = _NAMED_ADDRESS.fullmatch(text)
    address = named["address"] if named else text
    if not _MAIL_ADDRESS.fullmatch(address):
        raise ValueError("is not a mail address")
    return text


def _parse_header_name(text: str) -> str:
    if not _HEADER_NAME.fullmatch(text):
        raise ValueError("is not the name of a header")
    return text


def _parse_intervals(text: str) -> dict[str, float]:
    intervals: dict[str, float] = {}
    for item in _items(text):
        name, separator, seconds = item.partition("=")
        if not separator or not name:
            raise ValueError(f"holds {item!r}, which is not name=seconds")
        intervals[name.strip()] = float(number(1, 86_400).parse(seconds.strip()))
    return intervals


def _parse_text(text: str) -> str:
    if any(ord(character) < ord(" ") for character in text):
        raise ValueError("holds a control character")
    return text


def _parse_origin(text: str) -> str:
    if "://" in text or re.search(r"[\s+]", text) or text.endswith("/"):
        raise ValueError("is not a host and path without scheme, space, plus sign and trailing slash")
    return text


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError("is out of range")
    return value


def _items(text: str) -> tuple[str, ...]:
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


PORT = whole(1, HIGHEST_PORT)
PORTS = Kind("list", "port numbers, comma-separated", _parse_ports)
CIDRS = Kind("list", "networks such as 10.0.0.0/8, comma-separated", _parse_cidrs)
SWITCH = Kind("switch", "1 or 0", _parse_switch)
PATH = Kind("path", "a path", _parse_path)
PATHS = Kind("paths", "directories, separated by colons", _parse_paths)
SENDER = Kind("sender", "an address, or Name <address>", _parse_sender)
HEADER_NAME = Kind("header", "letters, digits and hyphens", _parse_header_name)
INTERVALS = Kind("list", "name=seconds (1 to 86400), comma-separated", _parse_intervals)
TEXT = Kind("text", "one line of text", _parse_text)
ORIGIN = Kind("origin", "host and path, such as creds.example.org/log", _parse_origin)
