"""Which addresses a crawl may reach, by the IANA registries of special-purpose addresses (IPv4 and IPv6) as a table."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.fetch.guard import why_forbidden

# Every row of both registries with its column "globally reachable"; "-" is the registry's N/A or a retired block.
# Below them what the registries leave to others: multicast, and site-local addresses (RFC 3879). "closed": reachable,
# but no place of web servers, so closed with the block around it.
REGISTRY = """
    0.0.0.0/8 no            0.0.0.0/32 no           10.0.0.0/8 no           100.64.0.0/10 no        127.0.0.0/8 no
    169.254.0.0/16 no       172.16.0.0/12 no        192.0.0.0/24 no         192.0.0.0/29 no         192.0.0.8/32 no
    192.0.0.9/32 closed     192.0.0.10/32 closed    192.0.0.170/32 no       192.0.0.171/32 no       192.0.2.0/24 no
    192.31.196.0/24 yes     192.52.193.0/24 yes     192.88.99.0/24 -        192.168.0.0/16 no       192.175.48.0/24 yes
    198.18.0.0/15 no        198.51.100.0/24 no      203.0.113.0/24 no       240.0.0.0/4 no
    255.255.255.255/32 no

    ::1/128 no              ::/128 no               ::ffff:0:0/96 wraps     64:ff9b::/96 wraps      64:ff9b:1::/48 no
    100::/64 no             100:0:0:1::/64 no       2001::/23 no            2001::/32 wraps         2001:1::1/128 closed
    2001:1::2/128 closed    2001:1::3/128 closed    2001:2::/48 no          2001:3::/32 closed
    2001:4:112::/48 closed  2001:10::/28 -          2001:20::/28 closed     2001:30::/28 closed     2001:db8::/32 no
    2002::/16 wraps         2620:4f:8000::/48 yes   3fff::/20 no            5f00::/16 no            fc00::/7 no
    fe80::/10 no

    224.0.0.0/4 no          ff00::/8 no             fec0::/10 no
"""
WORDS = REGISTRY.split()
ROWS = [(ipaddress.ip_network(block), reachable) for block, reachable in zip(WORDS[::2], WORDS[1::2], strict=True)]
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
WRAPPING = ipaddress.ip_network("::/96")
OPEN_ON_REQUEST = "10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.168.0.0/16 198.18.0.0/15 ::1/128 fc00::/7"


def wraps(ip) -> bool:
    return ip in WRAPPING or any(ip in network for network, reachable in ROWS if reachable == "wraps")


def is_public(ip) -> bool:
    """The registry's word on an address that wraps no other."""
    inside = [reachable for network, reachable in ROWS if ip in network]
    return all(reachable == "yes" for reachable in inside) and (ip.version == 4 or ip in PUBLIC_IPV6)


def neighbourhood(network) -> list:
    """The ends and the middle of a block and the addresses before and after it."""
    family = type(network[0])
    inside = [int(network[0]), int(network[0]) + network.num_addresses // 2, int(network[-1])]
    most = (1 << network.max_prefixlen) - 1
    outside = [number for number in (inside[0] - 1, inside[-1] + 1) if 0 <= number <= most]
    return [family(number) for number in inside + outside]


@pytest.mark.parametrize("network", [network for network, _ in ROWS], ids=str)
def test_the_registrys_blocks_and_their_neighbours(network):
    judged = {ip: why_forbidden(str(ip)) is None for ip in neighbourhood(network) if not wraps(ip)}
    assert judged == {ip: is_public(ip) for ip in judged}


@settings(max_examples=300)
@given(st.ip_addresses())
def test_any_address_is_judged_by_the_registry(ip):
    if not wraps(ip):
        assert (why_forbidden(str(ip)) is None) == is_public(ip)


@pytest.mark.parametrize("address", ["fec0::1", "feff::1", "3fff::1", "3fff:fff:ffff::1", "::", "5f00::1"])
def test_no_special_address_passes_whatever_is_allowed(address):
    assert why_forbidden(address) and why_forbidden(address, allow_private=True)


@pytest.mark.parametrize(
    "address", ["3ffe::1", "3fff:1000::1", "2606:4700::1111", "2a00:1450:4001:800::200e", "8.8.8.8"]
)
def test_public_addresses_pass(address):
    assert why_forbidden(address) is None


@pytest.mark.parametrize("network", [network for network, reachable in ROWS if reachable == "no"], ids=str)
def test_only_private_networks_and_loopback_open_on_request(network):
    address = network[0]
    opened = any(address in ipaddress.ip_network(block) for block in OPEN_ON_REQUEST.split())
    assert why_forbidden(str(address)) and (why_forbidden(str(address), allow_private=True) is None) == opened


@given(st.ip_addresses(v=4))
def test_a_wrapped_ipv4_address_is_judged_by_itself(ip):
    number = int(ip)
    wrapped = [f"::ffff:{ip}", f"64:ff9b::{ip}", str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1))]
    if number > 1:  # :: and ::1 are themselves
        wrapped.append(str(ipaddress.IPv6Address(number)))
    assert {why_forbidden(address) is None for address in wrapped} == {is_public(ip)}
