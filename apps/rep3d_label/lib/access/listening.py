"""Where the server listens, under which names it is known, and so whether others than this computer reach it."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

__all__ = ["Listening", "is_loopback", "is_name_of_host"]


def is_loopback(host: str) -> bool:
    """Return whether a name or address means this computer and nothing else."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_name_of_host(text: str) -> bool:
    """Return whether a text is a host name or an address, without a port."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        parts = text.split(".")
        return all(part.replace("-", "a").isascii() and part.replace("-", "a").isalnum() for part in parts)
    return True


@dataclass(frozen=True)
class Listening:
    """Where a server listens.

    Attributes:
        host: the address that it was told to listen on.
        port: the port.
        hosts: names and addresses under which it is reached besides, such as a proxy's.
        tls: whether it speaks https itself.
    """

    host: str
    port: int
    hosts: tuple[str, ...] = ()
    tls: bool = False
    _names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = {"localhost", "127.0.0.1", "::1", self.host.lower(), *self.hosts}
        if not is_loopback(self.host):
            names.add(socket.gethostname().lower())
        object.__setattr__(self, "_names", frozenset(names))

    @classmethod
    def from_arguments(cls, arguments: Sequence[str], port: int, hosts: tuple[str, ...]) -> Listening:
        """Return what the command line says; MONAI Label keeps the port in its settings, but not the address."""
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("-i", "--host", default="0.0.0.0")
        parser.add_argument("--ssl_certfile")
        known, _ = parser.parse_known_args(arguments)
        return cls(str(known.host), port, hosts, known.ssl_certfile is not None)

    @property
    def beyond_loopback(self) -> bool:
        """Whether others than this computer reach it."""
        return not all(is_loopback(host) for host in (self.host, *self.hosts))

    def is_known(self, host: str, own: str | None) -> bool:
        """Return whether a ``Host`` header names this server.

        Args:
            host: the header; a port in it does not count.
            own: the address of this computer to which the request came.
        """
        name = host.lower().rstrip(".")
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        return name in self._names or (own is not None and name == own.lower())

    def urls(self) -> list[str]:
        """Return the addresses to type into a browser."""
        hosts = [self.host]
        if self.host in ("0.0.0.0", "::"):
            families = (socket.AF_INET,) if self.host == "0.0.0.0" else (socket.AF_INET, socket.AF_INET6)
            found = {
                one.address.partition("%")[0] for all in psutil.net_if_addrs().values() for one in all
                if one.family in families
            }  # fmt: skip
            hosts = ["localhost", *sorted(host for host in found if not is_loopback(host))]
        scheme = "https" if self.tls else "http"
        return [f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}" for host in hosts]
