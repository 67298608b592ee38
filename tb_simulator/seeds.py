"""ThingsBoard's own demo data, and a second tenant for tests across tenants."""

from tb_simulator.makers import make_customer, make_device, make_tenant, make_user, profile_for
from tb_simulator.world import NO_CUSTOMER, SYSTEM_TENANT, World
from tb_simulator.world_types import reference

_DHT11 = (
    "Demo device that is used in sample applications that upload data from DHT11 temperature and humidity "
    "sensor"
)
_RASPBERRY = "Demo device that is used in Raspberry Pi GPIO control sample application"
_THERMOSTAT = "Demo device for Thermostats dashboard"


def seed(world: World) -> None:
    """Fill a world with ThingsBoard's demo users, customers and devices."""
    make_user(world, (SYSTEM_TENANT, NO_CUSTOMER), "sysadmin@thingsboard.org", "SYS_ADMIN", "sysadmin")
    tenant = make_tenant(world, "Tenant").id
    make_user(world, (tenant, NO_CUSTOMER), "tenant@thingsboard.org", "TENANT_ADMIN", "tenant")
    customers = {letter: make_customer(world, tenant, f"Customer {letter}").id for letter in "ABC"}
    for email, letter in (("customer", "A"), ("customerA", "A"), ("customerB", "B"), ("customerC", "C")):
        address = f"{email}@thingsboard.org"
        make_user(world, (tenant, customers[letter]), address, "CUSTOMER_USER", "customer")
    for name in ("A1", "A2", "A3", "B1", "C1"):
        make_device(
            world, tenant, f"Test Device {name}", customer=customers[name[0]], token=f"{name}_TEST_TOKEN"
        )
    _described(world, tenant, "DHT11 Demo Device", "default", _DHT11)
    _described(world, tenant, "Raspberry Pi Demo Device", "default", _RASPBERRY)
    for name in ("Thermostat T1", "Thermostat T2"):
        _described(world, tenant, name, "thermostat", _THERMOSTAT)
    _give_rules(world, tenant)
    other = make_tenant(world, "Second Tenant").id
    make_user(world, (other, NO_CUSTOMER), "second@thingsboard.org", "TENANT_ADMIN", "second")
    make_device(world, other, "Second Tenant Device", token="SECOND_TENANT_TOKEN")  # noqa: S106 - a device of ours


def _give_rules(world: World, tenant: str) -> None:
    """Give the demo's thermostat profile its own rule chain (profiles.json, "device profiles")."""
    profile = profile_for(world, "DEVICE", tenant, "thermostat")
    rule_chain = reference("RULE_CHAIN", world.new_id()[0])
    profile.body |= {"description": "Thermostat device profile", "defaultRuleChainId": rule_chain}
    world.touch(profile)


def _described(world: World, tenant: str, name: str, kind: str, description: str) -> None:
    make_device(world, tenant, name, kind=kind, more={"additionalInfo": {"description": description}})
