# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from conferral.cli import ports


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Yield a listening socket on a loopback port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


@pytest.mark.skipif(sys.platform != "linux", reason="/proc names the holder on Linux only")
def test_a_taken_port_names_its_holder_and_the_setting(listener: socket.socket) -> None:
    """Whoever reads it knows which program to end, or what to set instead."""
    port = listener.getsockname()[1]
    wanted = ports.Wanted("pages and API", "127.0.0.1", port, "CONFERRAL_HTTP_PORT")
    (sentence,) = ports.taken([wanted])
    assert sentence.startswith(f"port {port} on 127.0.0.1 (pages and API) is taken by ")
    assert f"(pid {os.getpid()})" in sentence
    assert sentence.endswith("choose another port with CONFERRAL_HTTP_PORT")


def test_a_port_taken_on_every_address_is_noticed(listener: socket.socket) -> None:
    """A server on 0.0.0.0 also holds the loopback port, and the other way round."""
    port = listener.getsockname()[1]
    assert len(list(ports.taken([ports.Wanted("x", "0.0.0.0", port, "X")]))) == 1  # noqa: S104


def test_a_free_port_is_no_problem(listener: socket.socket) -> None:
    """Probing leaves nothing behind that would make the port taken."""
    port = listener.getsockname()[1]
    listener.close()
    wanted = ports.Wanted("x", "127.0.0.1", port, "X")
    assert list(ports.taken([wanted, wanted])) == []
    assert not ports.is_open("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_refused_with_the_reason() -> None:
    """A wrong CONFERRAL_HTTP_HOST is told before anything starts."""
    (sentence,) = ports.taken([ports.Wanted("x", "192.0.2.1", 18080, "CONFERRAL_HTTP_HOST")])
    assert "cannot be used: cannot assign requested address" in sentence
