"""Which addresses are public, however they are written."""

from ipaddress import ip_address

import pytest

from storage.addresses import Exceptions, is_public

PUBLIC = ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NOT_PUBLIC = [
    "0.0.0.0", "10.0.0.1", "100.100.100.200", "127.0.0.1", "168.63.129.16", "169.254.169.254",
    "172.16.0.1", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b:1::1", "2001:0:1::1", "2001:db8::1", "2002:7f00:1::", "fd00::1",
    "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_at_large_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_any_other_address_is_not_public(address: str) -> None:
    assert not is_public(address)


def test_an_owner_names_hosts_and_networks() -> None:
    named = Exceptions.parse(["Pictures.intern", "10.2.0.0/16", "fd00::7"])
    for host, address in (
        ("pictures.intern", "192.168.1.1"),
        ("other.intern", "10.2.3.4"),
        ("other.intern", "::ffff:10.2.3.4"),
        ("other.intern", "fd00::7"),
    ):
        assert named.name(host, ip_address(address))
    for host, address in (
        ("other.intern", "192.168.1.1"),
        ("pictures.intern.evil.example", "192.168.1.1"),
        ("pictures.intern", "169.254.169.254"),
        ("pictures.intern", "0.0.0.0"),
        ("other.intern", "10.3.0.1"),
    ):
        assert not named.name(host, ip_address(address))


@pytest.mark.parametrize("item", ["http://x", "*", "a b", "x:80", ""])
def test_what_is_neither_is_refused(item: str) -> None:
    with pytest.raises(ValueError, match="no host name, address or network"):
        Exceptions.parse([item])
