"""Connections to addresses that others have chosen: only to public ones, unless a setting says so.

A name is resolved here, and the connection is opened to an address that was checked. So it does not
matter what the name resolves to a moment later (DNS rebinding), or how an address is written. The
names of the Host header and of the certificate stay those of the URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore

Address = IPv4Address | IPv6Address
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a host name; none if it cannot be resolved."""

# IPv6 addresses of IPv4 hosts: the last 32 bits are the address.
NAT64 = IPv6Network("64:ff9b::/96")

# What Python takes for public.
NOT_PUBLIC = (
    IPv4Network("192.0.0.0/24"),  # of protocols between a host and its network
    IPv4Network("168.63.129.16/32"),  # the host of a virtual machine in Azure
    IPv6Network("fec0::/10"),  # private, by an older standard (site-local)
)

MOST_LOOKUPS = 32
"""The largest number of host names that a process resolves at once."""


class Unreachable(Exception):
    """There is no address to connect to; the message says why, without naming any."""


class Resolver:
    """Resolves host names by the system's resolver, in threads of its own.

    A lookup goes on when nobody waits for it any more, and nothing can end it. So it may not use
    the threads that others need, and there is one at a time for each name.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_LOOKUPS, "names")
        self._lookups: dict[str, asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        """The addresses of a host name; none if it cannot be resolved."""
        lookup = self._lookups.get(host)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = self._lookups[host] = loop.run_in_executor(self._threads, _look_up, host)
            lookup.add_done_callback(lambda _: self._lookups.pop(host))
        return await asyncio.shield(lookup)


def _look_up(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def is_public(address: Address) -> bool:
    """Whether anybody can have a host with this address."""
    address = embedded(address)
    is_other = address.is_multicast or address.is_reserved
    return address.is_global and not (is_other or any(address in each for each in NOT_PUBLIC))


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections to public addresses, and to those of some networks."""

    def __init__(self, networks: Iterable[str] = (), resolve: Resolve | None = None) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(each) for each in networks]
        self._resolve = resolve or Resolver()
        self._backend = httpcore.AnyIOBackend()

    def allows(self, address: Address) -> bool:
        """Whether connections to this address may be opened."""
        real = embedded(address)
        return is_public(address) or any(real in network for network in self._networks)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as its base declares it
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first allowed address of a host that accepts it. Raises Unreachable."""
        found = await self._resolve(host)
        allowed = [each for each in found if self.allows(ip_address(each))]
        if not allowed:
            # The same for a name that does not exist, so that nobody learns which private ones do.
            raise Unreachable(
                "The host leads to no public address; an operator of the server can allow others by"
                " TROUPE_WEBHOOK_PRIVATE_NETWORKS."
            )
        share = None if timeout is None else timeout / len(allowed)
        options = (port, share, local_address, socket_options)
        for address in allowed[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._backend.connect_tcp(address, *options)
        return await self._backend.connect_tcp(allowed[-1], *options)

    async def sleep(self, seconds: float) -> None:
        """Wait, between the attempts of the client to connect."""
        await asyncio.sleep(seconds)
