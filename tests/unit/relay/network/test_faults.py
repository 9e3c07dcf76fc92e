from relay.network import faults


def test_a_fault_with_the_source_address_is_not_blamed_on_the_proxy() -> None:
    fault = faults.source_unusable(OSError(99, "Cannot assign requested address: 192.0.2.1"))

    assert (fault.reason, fault.lasting) == ("source-address-unusable", True)
    assert "(Cannot assign requested address: 192.0.2.1)" in fault.remedy


def test_the_remedy_for_hanging_name_servers_names_the_host() -> None:
    fault = faults.lookup_hangs("api.push.apple.com")

    assert (fault.reason, fault.lasting) == ("name-lookup-timed-out", False)
    assert "api.push.apple.com" in fault.remedy


def test_the_remedy_for_a_source_address_of_another_kind_names_host_and_addresses() -> None:
    fault = faults.no_source("ipv6.example.com", ("192.0.2.1",))

    assert (fault.reason, fault.lasting) == ("source-address-of-another-kind", True)
    assert "ipv6.example.com has no address that 192.0.2.1 can reach" in fault.remedy
