"""Where the relay of a registry is, whatever the registry and its name say."""

import pytest

from kodo.registry.client.waiting import relay_hosts

PUBLIC, PUBLIC6 = "8.8.4.4", "2001:4860:4860::8844"
NEAR, NEAR6 = "192.168.1.2", "fd12::2"


@pytest.mark.parametrize(
    ("peer", "others", "hosts"),
    [
        (PUBLIC, [PUBLIC6], (PUBLIC, PUBLIC6)),
        (PUBLIC6, [PUBLIC], (PUBLIC6, PUBLIC)),
        (f"::ffff:{PUBLIC}", [PUBLIC6], (PUBLIC, PUBLIC6)),
        (PUBLIC, ["8.8.8.8", PUBLIC6, "2001:4860:4860::8888"], (PUBLIC, PUBLIC6)),
        # What answered counts, wherever it is.
        (NEAR, [], (NEAR,)),
        ("127.0.0.1", ["::1"], ("127.0.0.1",)),
        # Private addresses: only of a registry that is at one.
        (NEAR, [NEAR6], (NEAR, NEAR6)),
        (PUBLIC, [NEAR6], (PUBLIC,)),
        (PUBLIC6, [NEAR, PUBLIC], (PUBLIC6, PUBLIC)),
        # Nobody is at these whom a registry could speak for.
        *((NEAR, [each], (NEAR,)) for each in ("::1", "fe80::1", "fe80::1%eth0", "ff02::1", "ff0e::1", "::")),
        *(
            (NEAR6, [each], (NEAR6,))
            for each in ("127.0.0.1", "169.254.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0")
        ),
    ],
)
def test_a_relay_is_where_the_registry_answered_and_where_its_name_may_lead(peer, others, hosts):
    assert relay_hosts(peer, others, 8360) == hosts


@pytest.mark.parametrize(
    ("others", "hosts"),
    [
        ([PUBLIC, PUBLIC6], (PUBLIC, PUBLIC6)),
        (["10.0.0.5", PUBLIC], (PUBLIC,)),
        *(([each], ()) for each in (NEAR, NEAR6, "239.1.2.3", "127.0.0.1", "169.254.1.1", "100.64.0.1", "ff0e::1")),
    ],
)
def test_behind_a_proxy_a_registrys_name_leads_to_public_addresses_alone(others, hosts):
    assert relay_hosts(None, others, 8360, named=8360) == hosts
    assert relay_hosts(None, others, 53, named=8360) == ()


@pytest.mark.parametrize(
    ("port", "named", "other"), [(53, 8360, False), (443, 8360, False), (443, 443, True), (8360, 443, True)]
)
def test_ports_of_system_services_are_left_alone_but_for_the_one_that_the_user_named(port, named, other):
    assert relay_hosts(PUBLIC, [PUBLIC6], port, named=named) == ((PUBLIC, PUBLIC6) if other else (PUBLIC,))
