# SPDX-License-Identifier: Apache-2.0
"""Which addresses a webhook may be sent to: the lock against server-side request forgery.

A URL is checked when an endpoint is created and again when it is used; what counts is the
address that is connected to, so `resolve` looks the name up once, checks every answer and
hands the checked addresses on. Nothing may look the name up a second time.
IPv6 is allowed by list and IPv4 refused by list, because `ipaddress.is_global` lets
64:ff9b::/96, 2002::/16, ::/96 and 224.0.0.0/4 pass on Python 3.11.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import idna

from conferral.reliable.errors import Permanent

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORBIDDEN: Final = "endpoint_address_forbidden"
ALLOW_SETTING: Final = "CONFERRAL_WEBHOOK_ALLOW_CIDRS"
MAX_URL_CHARACTERS: Final = 2_048
"""What proxies and servers commonly take; a longer address is a mistake."""
PRODUCTION_PORTS: Final = frozenset({443, 8443})
"""Where HTTPS is served; any other port is somebody's database until an operator says otherwise."""

_REFUSED_IPV4: Final = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local: the metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
_REFUSED_IPV6: Final = tuple(
    ipaddress.IPv6Network(block)
    for block in (
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
)
# What no setting opens in production: this host itself and the link, where metadata services answer.
_NEVER_IN_PRODUCTION: Final = tuple(
    ipaddress.ip_network(block)
    for block in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::/128", "::1/128", "fe80::/10")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_UNSAFE: Final = re.compile(r"[^!-~]")
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


@dataclass(frozen=True)
class Target:
    """Where a checked URL leads."""

    scheme: str
    host: str
    """In lower case and ASCII; an IPv6 address without its brackets."""
    port: int
    path: str = "/"
    """With its query, without a fragment; ASCII without spaces."""

    @property
    def url(self) -> str:
        """The URL made of these parts, which no two parsers can read differently."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass(frozen=True)
class Resolved:
    """One checked address of a host, ready for `socket.connect`."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


class AddressGuard:
    """The rules of one deployment: `allow` opens networks that are refused otherwise."""

    def __init__(
        self,
        allow: Sequence[Network] = (),
        *,
        allow_http: bool = False,
        allow_ports: Collection[int] = (),
        production: bool = True,
    ) -> None:
        self._allow = tuple(allow)
        self._allow_http = allow_http
        self._ports = PRODUCTION_PORTS | frozenset(allow_ports)
        self._production = production

    def check_url(self, url: str) -> Target:
        """Return where the URL leads, without looking its name up.

        An address in the URL is checked in every spelling that a resolver would understand.

        Raises:
            Permanent: `endpoint_address_forbidden`, with the reason.
        """
        if len(url) > MAX_URL_CHARACTERS:
            raise _forbidden(f"The webhook address is longer than {MAX_URL_CHARACTERS} characters.")
        target = _parsed(url)
        scheme, port = target.scheme, target.port
        if scheme == "http" and self._production and not self._allow_http:
            raise _forbidden(
                "Webhooks go to https only; CONFERRAL_WEBHOOK_ALLOW_HTTP allows http to the networks of "
                f"{ALLOW_SETTING}."
            )
        if self._production and port not in self._ports:
            raise _forbidden(f"Port {port} is not allowed; CONFERRAL_WEBHOOK_ALLOW_PORTS would allow it.")
        literal = _literal(target.host)
        if literal is not None:
            self.check_address(literal, scheme=scheme)
        return target

    def check_address(self, address: Address | str, *, scheme: str = "https") -> None:
        """Return if a connection to the address is allowed.

        Raises:
            Permanent: `endpoint_address_forbidden`, naming the setting that would allow it.
        """
        outer = ipaddress.ip_address(address) if isinstance(address, str) else address
        inner = _embedded(outer)
        if self._production and any(_within(each, _NEVER_IN_PRODUCTION) for each in (outer, *inner)):
            raise _forbidden(
                "The webhook address leads to this host itself or to its link; "
                f"in production not even {ALLOW_SETTING} allows that."
            )
        mapped = outer.ipv4_mapped if isinstance(outer, ipaddress.IPv6Address) else None
        effective = mapped or outer
        if _within(effective, self._allow) or _within(outer, self._allow):
            return
        if scheme == "http" and self._production:
            raise _forbidden(
                f"Plain http is allowed to the networks of {ALLOW_SETTING} only, and this address is in none."
            )
        if not _is_public(effective):
            raise _forbidden(
                "The webhook address leads to a private or reserved network; the setting "
                f"{ALLOW_SETTING} would allow it."
            )

    def resolve(self, target: Target) -> list[Resolved]:
        """Look the host up once and return its addresses, all of them checked.

        Raises:
            Permanent: `endpoint_address_forbidden`, if a single answer is not allowed.
            OSError: the name cannot be resolved.
        """
        try:
            answers = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            # The idna codec of the standard library refuses labels that are too long or empty.
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
        for _family, _type, _protocol, _name, sockaddr in answers:
            self.check_address(str(sockaddr[0]), scheme=target.scheme)
        return [
            Resolved(family=family, sockaddr=sockaddr)  # type: ignore[arg-type]
            for family, _type, _protocol, _name, sockaddr in answers
        ]


def _parsed(url: str) -> Target:
    """Return the parts of a URL, all of them checked for form."""
    try:
        parsed = urlsplit(_ascii_url(url))
        host, port = (parsed.hostname or "").lower(), parsed.port
        if ":" in host:
            host = str(ipaddress.IPv6Address(host))
    except ValueError:
        raise _forbidden("The webhook address is not a URL.") from None
    if parsed.scheme not in {"http", "https"}:
        raise _forbidden("A webhook address begins with https://.")
    if "@" in parsed.netloc or "\\" in url:
        raise _forbidden("A webhook address must not hold a user name, a password or a backslash.")
    if not host or port == 0 or parsed.netloc.endswith(":"):
        raise _forbidden("The webhook address names no host or no port.")
    if not _HOST.fullmatch(host) and (":" not in host or "%" in host):
        raise _forbidden("The host of the webhook address is not a host name.")
    return Target(
        scheme=parsed.scheme,
        host=host,
        port=port or (443 if parsed.scheme == "https" else 80),
        path=(parsed.path or "/") + (f"?{parsed.query}" if parsed.query else ""),
    )


def _ascii_url(url: str) -> str:
    """Return the URL with its host in ASCII (IDNA 2008, which also maps wide digits and dots)."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError("no scheme")
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, tail = rest[:end], rest[end:]
    if not authority.isascii():
        host, colon, port = authority.partition(":")
        try:
            authority = idna.encode(host, uts46=True).decode("ascii") + colon + port
        except idna.IDNAError as error:
            raise ValueError("no host name") from error
    whole = f"{scheme.lower()}://{authority}{tail}"
    if _UNSAFE.search(whole):
        raise ValueError("a space, a control character or one that must be percent-encoded")
    return whole


def _literal(host: str) -> Address | None:
    """Return the address a host spells, in every form a resolver takes: 127.1, 0x7f.1, 2130706433."""
    bare = host.removesuffix(".")
    if bare == "localhost" or bare.endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1")  # RFC 6761 6.3
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare))
    except OSError:
        return None


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not _within(address, _REFUSED_IPV4)
    return address in _GLOBAL_IPV6 and not _within(address, _REFUSED_IPV6)


def _embedded(address: Address) -> tuple[Address, ...]:
    """Return the IPv4 addresses that an IPv6 address may lead to by mapping, NAT64 or 6to4."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return tuple(each for each in found if each is not None)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _forbidden(detail: str) -> Permanent:
    return Permanent(FORBIDDEN, detail)
