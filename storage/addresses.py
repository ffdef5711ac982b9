"""Which addresses a fetch may reach: those of the internet at large, and what an owner names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
#: All that is handed out of IPv6 for the internet at large (RFC 4291).
_UNICAST = IPv6Network("2000::/3")
#: Where translators put IPv4 into IPv6 (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")
#: What looks public and is not: the protocol assignments of RFC 6890, which older versions of
#: Python take for public, and the agent of the host that answers every machine at Azure.
_SPECIAL = (IPv4Network("192.0.0.0/24"), IPv4Network("168.63.129.16/32"))


@dataclass(frozen=True)
class Exceptions:
    """Hosts and networks that may be reached although they are not public, and without TLS."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, items: Sequence[str]) -> "Exceptions":
        """From host names, addresses and networks such as 10.2.0.0/16; raises ValueError."""
        hosts, networks = set(), []
        for item in items:
            try:
                networks.append(ip_network(item, strict=False))
            except ValueError:
                if not _HOST.fullmatch(item.lower()):
                    raise ValueError(f"{item!r} is no host name, address or network") from None
                hosts.add(item.lower())
        return cls(frozenset(hosts), tuple(networks))

    def name(self, host: str, address: Address) -> bool:
        """Whether the owner named this host or its network.

        A named host may have any address of the owner's, but not one that is the machine's own
        business: names are looked up anew each time, and link-local ones give away credentials.
        """
        plain = _plain(address)
        if any(plain in network for network in self.networks):
            return True
        odd = plain.is_link_local or plain.is_multicast or plain.is_unspecified
        return host.lower() in self.hosts and not odd


def is_public(address: Address | str) -> bool:
    """Whether an address is one of the internet at large, however it is written."""
    plain = _plain(ip_address(address) if isinstance(address, str) else address)
    if isinstance(plain, IPv6Address) and plain not in _UNICAST:
        return False
    return (
        plain.is_global
        and not plain.is_multicast
        and not plain.is_reserved
        and not any(plain in network for network in _SPECIAL)
    )


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
