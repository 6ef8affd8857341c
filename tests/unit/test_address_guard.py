# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import socket

import pytest

from conferral.adapters.address_guard import AddressGuard, Target
from conferral.reliable.errors import Permanent

PRODUCTION = AddressGuard()
FORBIDDEN_HOSTS = [
    # This host, in the spellings that resolvers understand.
    *("127.0.0.1", "127.1", "127.0.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "017700000001"),
    *(
        "127.0.0.1.",
        "127.255.255.254",
        "0.0.0.0",  # noqa: S104 - nothing binds to it
        "0",
        "0x0",
        "localhost",
        "localhost.",
        "a.localhost",
        "LOCALHOST",
    ),
    *("\uff11\uff12\uff17.\uff10.\uff10.\uff11", "127。0。0。1", "①②⑦.⓪.⓪.①"),
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
    # Private networks, and the metadata services of clouds.
    *("10.0.0.1", "10.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "0xc0a80101", "100.64.0.1"),
    *("169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "[::ffff:a9fe:a9fe]"),
    *("[fe80::1]", "[fd00::1]", "[fc00::1]", "[fec0::1]", "[fd00:ec2::254]"),
    # Addresses with another one inside.
    *("[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]"),
    # Reserved, documentation, multicast, broadcast.
    *("192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("[2001:db8::1]", "[3fff::1]", "[ff02::1]", "[100::1]", "[5f00::1]", "[2001:10::1]"),
]
PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "[2606:4700::1111]",
    "[2a00:1450:4001::1]",
    "hooks.example",
    "bücher.example",
]


def test_there_are_at_least_40_spellings() -> None:
    """The list of spellings is not to shrink unnoticed."""
    assert len(FORBIDDEN_HOSTS) >= 40


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_address_is_refused_in_every_spelling(host: str) -> None:
    """An address inside is refused when the endpoint is created, however it is spelled."""
    with pytest.raises(Permanent) as caught:
        PRODUCTION.check_url(f"https://{host}/hook")
    assert caught.value.code == "endpoint_address_forbidden"
    assert "CONFERRAL_WEBHOOK_ALLOW_CIDRS" in caught.value.detail


@pytest.mark.parametrize("host", PUBLIC)
def test_public_address_is_allowed(host: str) -> None:
    """What is public passes, names included: they are checked when they are used."""
    assert PRODUCTION.check_url(f"https://{host}/hook?a=b#c").path == "/hook?a=b"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "gopher://hooks.example/",
        "//hooks.example/",
        "hooks.example",
        "https://",
        "https:///hook",
        "https://user@hooks.example/",
        "https://user:secret@hooks.example/",
        "https://hooks.example@127.0.0.1/",
        "https://hooks.example\\@127.0.0.1/",
        "https://127.0.0.1\\.hooks.example/",
        "https://hooks.example:0/",
        "https://hooks.example:/",
        "https://hooks.example:65536/",
        "https://hooks.example:22/",
        "https://hooks.example:6379/",
        "http://hooks.example/",
        "http://hooks.example:443/",
        "https://hooks.example/ a",
        "https://hooks.example/\r\nX: y",
        "https://hooks.example/\t",
        "https://hooks.example/ä",
        "https://ho oks.example/",
        "https://[::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[::1/",
        "https://%31%32%37.0.0.1/",
        "https://hooks..example/",
        "https://hooks.example/" + "a" * 2048,
    ],
)
def test_url_is_refused_when_it_is_not_a_plain_https_address(url: str) -> None:
    """Only https, the usual ports, no credentials, nothing two parsers could read differently."""
    with pytest.raises(Permanent) as caught:
        PRODUCTION.check_url(url)
    assert caught.value.code == "endpoint_address_forbidden"


def test_url_is_rebuilt_from_its_checked_parts() -> None:
    """The client sends to the parts that were checked, not to the text that was given."""
    assert PRODUCTION.check_url("HTTPS://Hooks.Example/a?b=c#d") == Target(
        "https", "hooks.example", 443, "/a?b=c"
    )
    assert PRODUCTION.check_url("https://hooks.example:8443").url == "https://hooks.example:8443/"
    assert PRODUCTION.check_url("https://[2606:4700::0:1111]/").url == "https://[2606:4700::1111]:443/"
    assert PRODUCTION.check_url("https://bücher.example/").host == "xn--bcher-kva.example"


def test_allowed_network_opens_when_it_is_named() -> None:
    """A self-hosted deployment reaches its own network, and nothing else inside."""
    guard = AddressGuard([ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("fd00:1::/32")])
    guard.check_url("https://10.20.3.4/")
    guard.check_url("https://[fd00:1::5]/")
    guard.check_url("https://[::ffff:10.20.3.4]/")
    for host in ("10.21.0.1", "127.0.0.1", "[fd00:2::1]"):
        with pytest.raises(Permanent):
            guard.check_url(f"https://{host}/")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
        "[fe80::1]",
        "0.0.0.0",  # noqa: S104 - nothing binds to it
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "[2002:7f00:1::]",
    ],
)
def test_loopback_and_link_stay_shut_in_production_even_if_allowed(host: str) -> None:
    """No setting lets a webhook reach this host or a metadata service in production; development may."""
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    with pytest.raises(Permanent, match="production"):
        AddressGuard(everything).check_url(f"https://{host}/")
    AddressGuard(everything, production=False).check_url(f"http://{host}:8080/")


def test_loopback_is_refused_in_development_unless_allowed() -> None:
    """Development opens ports and http, not addresses: those are allowed by name."""
    guard = AddressGuard(production=False)
    guard.check_url("http://hooks.example:8080/")
    with pytest.raises(Permanent, match="ALLOW_CIDRS"):
        guard.check_url("http://127.0.0.1:8080/")


def test_plain_http_goes_to_allowed_networks_only() -> None:
    """With the setting, http reaches the deployment's own network and never the internet."""
    guard = AddressGuard([ipaddress.ip_network("10.20.0.0/16")], allow_http=True, allow_ports=[80])
    guard.check_url("http://10.20.3.4/")
    with pytest.raises(Permanent, match="http"):
        guard.check_url("http://93.184.216.34/")
    with pytest.raises(Permanent, match="ALLOW_HTTP"):
        AddressGuard([ipaddress.ip_network("10.20.0.0/16")], allow_ports=[80]).check_url("http://10.20.3.4/")
    with pytest.raises(Permanent, match="ALLOW_PORTS"):
        AddressGuard().check_url("https://hooks.example:9443/")
    AddressGuard(allow_ports=[9443]).check_url("https://hooks.example:9443/")


def test_name_is_refused_when_one_of_its_answers_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer of the one look-up counts, not the first."""
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443)),
    ]
    asked = []

    def resolver(*question: object, **_options: object) -> list[object]:
        asked.append(question)
        return list(answers)

    # The resolver itself is what this test stands in for; nothing else is replaced.
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with pytest.raises(Permanent):
        PRODUCTION.resolve(Target("https", "hooks.example", 443))
    del answers[1]
    assert [each.sockaddr for each in PRODUCTION.resolve(Target("https", "hooks.example", 443))] == [
        ("93.184.216.34", 443)
    ]
    assert len(asked) == 2
