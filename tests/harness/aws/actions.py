"""What the cloud of the tests does itself, by action; everything else moto does."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from moto.core.utils import utcnow as moto_utcnow
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from werkzeug import Response

from gpucloud.model import utcnow
from tests.harness.aws import goods
from tests.harness.aws.blocks import NEXT, Reservation
from tests.harness.aws.cloud import ZONES, BootInfo, Cloud, Machine, Refusal, backend
from tests.harness.aws.wire import reply, reply_of_moto

Words = Mapping[str, Any]
Action = Callable[[Cloud, str, Words], Response | None]
PLENTY: Final = 10_000.0
FOR_OLD: Final = {"NetworkInterfaceId", "NetworkCardIndex", "DeviceIndex"}
"""What may be said of an interface that is there before the instance."""


class Refused(Exception):
    """The vendor says no."""

    def __init__(self, status: int, code: str, text: str) -> None:
        self.refusal = Refusal(status, code, text)


def describe_regions(cloud: Cloud, _: str, __: Words) -> Response:
    told = [
        {"RegionName": name, "Endpoint": f"ec2.{name}.amazonaws.com", "OptInStatus": "opt-in-not-required"}
        for name in cloud.regions
    ]
    return reply("ec2", "DescribeRegions", {"Regions": told})


def describe_instance_types(cloud: Cloud, region: str, words: Words) -> Response:
    usages = [each["Values"] for each in words.get("Filters", []) if each["Name"] == "supported-usage-class"]
    named = words.get("InstanceTypes", [])
    if unknown := set(named) - set(cloud.types):
        raise Refused(
            400, "InvalidInstanceType", f"The following supplied instance types do not exist: {unknown}"
        )
    types = [
        name
        for name in cloud.types
        if _has(cloud, region, name)
        and all(set(usage) & set(goods.facts(name)["SupportedUsageClasses"]) for usage in usages)
    ]
    found = [name for name in types if (name in named if named else _matches(words, "instance-type", name))]
    return _page(
        cloud, "DescribeInstanceTypes", "InstanceTypes", [goods.facts(name) for name in found], words
    )


def describe_instance_type_offerings(cloud: Cloud, region: str, words: Words) -> Response:
    assert words["LocationType"] == "availability-zone"
    told = [
        {"InstanceType": name, "LocationType": "availability-zone", "Location": zone}
        for name in cloud.types
        if _matches(words, "instance-type", name)
        for zone in (f"{region}{letter}" for letter in ZONES)
        if (name, zone) not in cloud.not_offered
    ]
    return _page(cloud, "DescribeInstanceTypeOfferings", "InstanceTypeOfferings", told, words)


def describe_spot_price_history(cloud: Cloud, region: str, words: Words) -> Response:
    told = []
    for name in words["InstanceTypes"]:
        for zone in (f"{region}{letter}" for letter in ZONES):
            usd = cloud.spot_usd.get((name, zone), goods.SPOT.get(name))
            if usd is None or (name, zone) in cloud.not_offered:
                continue
            line = {"AvailabilityZone": zone, "InstanceType": name, "ProductDescription": "Linux/UNIX"}
            # The one that holds, and one that a heedless reader would take for it.
            for price, age in ((usd, timedelta(hours=2)), ("99.000000", timedelta(days=2))):
                told.append({**line, "SpotPrice": price, "Timestamp": utcnow() - age})
    return _page(cloud, "DescribeSpotPriceHistory", "SpotPriceHistory", told, words)


def describe_capacity_block_offerings(cloud: Cloud, region: str, words: Words) -> Response:
    hours = words["CapacityDurationHours"]
    days = hours // 24
    # moto reads a time without its zone.
    first, last = (words[name].replace(tzinfo=UTC) for name in ("StartDateRange", "EndDateRange"))
    if hours % 24 or not (1 <= days <= 14 or (days <= 182 and days % 7 == 0)):
        raise Refused(400, "InvalidParameterValue", f"{hours} is not a valid CapacityDurationHours.")
    told = [
        offering.facts
        for offering in cloud.offerings
        if (offering.region, offering.instance_type) == (region, words["InstanceType"])
        and offering.nodes == words["InstanceCount"]
        and offering.starts_at >= first
        and offering.ends_at <= last
    ]
    return _page(cloud, "DescribeCapacityBlockOfferings", "CapacityBlockOfferings", told, words)


def purchase_capacity_block(cloud: Cloud, region: str, words: Words) -> Response:
    id = words["CapacityBlockOfferingId"]
    if any(id == bought.offering.id for bought in cloud.reservations.values()):
        text = f"The Capacity Block offering {id} is no longer available."
        raise Refused(400, "InvalidCapacityBlockOfferingIdExpired", text)
    offering = next((each for each in cloud.offerings if (each.id, each.region) == (id, region)), None)
    if offering is None:
        text = f"The Capacity Block offering {id} cannot be found."
        raise Refused(400, "InvalidCapacityBlockOfferingIdNotFound", text)
    assert words["InstancePlatform"] == "Linux/UNIX"
    (tagged,) = words["TagSpecifications"]
    assert tagged["ResourceType"] == "capacity-reservation"
    reservation = Reservation(f"cr-{len(cloud.reservations):017x}", offering, tagged["Tags"])
    cloud.reservations[reservation.id] = reservation
    return reply("ec2", "PurchaseCapacityBlock", {"CapacityReservation": reservation.facts(cloud.now(), 0)})


def describe_capacity_reservations(cloud: Cloud, region: str, words: Words) -> Response:
    assert not words.get("Filters"), "EC2 has no filter for tags here"
    shown = [each for each in cloud.reservations.values() if each.region == region]
    told = [*cloud.others_reservations, *(each.facts(cloud.now(), cloud.within(each.id)) for each in shown)]
    for each in shown:
        each.state = NEXT.get(each.state, each.state)
    return _page(cloud, "DescribeCapacityReservations", "CapacityReservations", told, words)


def get_spot_placement_scores(cloud: Cloud, _: str, words: Words) -> Response:
    assert words["SingleAvailabilityZone"]
    (name,), told = words["InstanceTypes"], []
    for region in words["RegionNames"]:
        for zone in RegionsAndZonesBackend.zones[region]:
            if score := cloud.scores.get((name, zone.name)):
                told.append({"Region": region, "AvailabilityZoneId": zone.zone_id, "Score": score})
    return _page(cloud, "GetSpotPlacementScores", "SpotPlacementScores", told, words)


def describe_images(cloud: Cloud, _: str, words: Words) -> Response:
    there = goods.images()
    for id in words["ImageIds"]:
        if not re.fullmatch("ami-[0-9a-f]{8,17}", id):
            raise Refused(400, "InvalidAMIID.Malformed", f'Invalid id: "{id}" (expecting "ami-...")')
        if id not in there:
            raise Refused(400, "InvalidAMIID.NotFound", f"The image id '[{id}]' does not exist")
    return reply("ec2", "DescribeImages", {"Images": [there[id] for id in words["ImageIds"]]})


def run_instances(cloud: Cloud, region: str, words: Words) -> Response:
    token = words["ClientToken"]
    before = next(
        (m for m in cloud.machines.values() if (m.region, m.request.get("ClientToken")) == (region, token)),
        None,
    )
    if before is not None:
        if before.request != words:
            text = "The client token you have provided is associated with a different request."
            raise Refused(400, "IdempotentParameterMismatch", text)
        return _told("RunInstances", region, before)
    _may_launch(cloud, region, words)
    machine = _made(cloud, region, words)
    return _told("RunInstances", region, machine)


def describe_instances(cloud: Cloud, region: str, words: Words) -> Response:
    there, ids = backend(region), words.get("InstanceIds", [])
    for id in ids:
        _known(cloud, region, id)
    filters = {each["Name"]: each["Values"] for each in words.get("Filters", [])}
    groups = filters.pop("placement-group-name", None)
    shown = [machine for machine in cloud.machines.values() if machine.region == region]
    for machine in [machine for machine in shown if machine.unseen and not ids]:
        machine.unseen -= 1
        shown.remove(machine)
    if groups:
        shown = [machine for machine in shown if machine.placement_group in groups]
    found = there.describe_instances(filters)
    by_id = {one.id: reservation for reservation in found for one in reservation.instances}
    listed = [m for m in shown if m.id in by_id and (not ids or m.id in ids)]
    answer = reply_of_moto("DescribeInstances", {"Reservations": [by_id[m.id] for m in listed]})
    for machine in listed:
        machine.seen()
    return answer


def terminate_instances(cloud: Cloud, region: str, words: Words) -> Response:
    changed = []
    for machine in [_known(cloud, region, id) for id in words["InstanceIds"]]:
        previous = machine.state
        if machine.alive:
            machine.thing.terminate()
            machine.become("shutting-down")
            cloud.on_end(machine.id)
        changed.append(_change(machine, previous))
    return reply("ec2", "TerminateInstances", {"TerminatingInstances": changed})


def stop_instances(cloud: Cloud, region: str, words: Words) -> Response:
    changed = []
    for machine in [_known(cloud, region, id) for id in words["InstanceIds"]]:
        previous = machine.state
        if machine.spot:
            text = f"You can't stop the Spot Instance '{machine.id}': its request is a one-time request."
            raise Refused(400, "UnsupportedOperation", text)
        _must_be(machine, "running", "stopping", "stopped")
        if previous == "running":
            machine.thing.stop()
            machine.become("stopping")
        changed.append(_change(machine, previous))
    return reply("ec2", "StopInstances", {"StoppingInstances": changed})


def start_instances(cloud: Cloud, region: str, words: Words) -> Response:
    changed = []
    for machine in [_known(cloud, region, id) for id in words["InstanceIds"]]:
        previous = machine.state
        _must_be(machine, "running", "pending", "stopped")
        if previous == "stopped":
            _take(cloud, machine.instance_type, machine.zone)
            machine.thing.start()
            machine.become("pending")
        changed.append(_change(machine, previous))
    return reply("ec2", "StartInstances", {"StartingInstances": changed})


def create_placement_group(cloud: Cloud, region: str, words: Words) -> Response:
    key = (region, words["GroupName"])
    if key in cloud.placement_groups:
        text = f"The placement group '{words['GroupName']}' already exists."
        raise Refused(400, "InvalidPlacementGroup.Duplicate", text)
    tags = [tag for each in words.get("TagSpecifications", []) for tag in each["Tags"]]
    group = {
        "GroupName": words["GroupName"],
        "Strategy": words["Strategy"],
        "State": "available",
        "Tags": tags,
    }
    cloud.placement_groups[key] = group
    return reply("ec2", "CreatePlacementGroup", {"PlacementGroup": group})


def describe_placement_groups(cloud: Cloud, region: str, words: Words) -> Response:
    (wanted,) = words["Filters"]
    assert wanted["Name"] == "tag-key"
    told = [
        group
        for (place, _), group in cloud.placement_groups.items()
        if place == region and any(tag["Key"] in wanted["Values"] for tag in group["Tags"])
    ]
    return reply("ec2", "DescribePlacementGroups", {"PlacementGroups": told})


def delete_placement_group(cloud: Cloud, region: str, words: Words) -> Response:
    name = words["GroupName"]
    if (region, name) not in cloud.placement_groups:
        raise Refused(400, "InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
    if any(m.placement_group == name and m.state != "terminated" for m in cloud.machines.values()):
        text = f"The placement group '{name}' is in use and may not be deleted."
        raise Refused(400, "InvalidPlacementGroup.InUse", text)
    del cloud.placement_groups[region, name]
    return reply("ec2", "DeletePlacementGroup", {})


def allocate_address(cloud: Cloud, region: str, _: Words) -> Response | None:
    if len(backend(region).addresses) >= cloud.quotas.get((region, "L-0263D0A3"), PLENTY):
        text = "The maximum number of addresses has been reached."
        raise Refused(400, "AddressLimitExceeded", text)
    return None


def describe_addresses(_: Cloud, region: str, words: Words) -> Response:
    filters = {each["Name"]: each["Values"] for each in words.get("Filters", [])}
    ids = words.get("AllocationIds", [])
    there = backend(region).describe_addresses(filters=filters)
    if unknown := set(ids) - {address.allocation_id for address in there}:
        raise Refused(400, "InvalidAllocationID.NotFound", f"The allocation ID '{unknown}' does not exist")
    told = []
    for address in there:
        if ids and address.allocation_id not in ids:
            continue
        used = {}
        if address.eni:
            used = {"AssociationId": address.association_id, "NetworkInterfaceId": address.eni.id}
            if address.eni.instance:
                used["InstanceId"] = address.eni.instance.id
        tags = [{"Key": tag["key"], "Value": tag["value"]} for tag in address.get_tags()]
        facts = {"AllocationId": address.allocation_id, "PublicIp": address.public_ip, "Domain": "vpc"}
        told.append({**facts, **used, "Tags": tags})
    return reply("ec2", "DescribeAddresses", {"Addresses": told})


def release_address(_: Cloud, region: str, words: Words) -> Response | None:
    if any(each.allocation_id == words["AllocationId"] and each.eni for each in backend(region).addresses):
        text = f"Address with allocation id {words['AllocationId']} cannot be released: it is in use"
        raise Refused(400, "InvalidIPAddress.InUse", text)
    return None


def create_network_interface(cloud: Cloud, region: str, words: Words) -> Response:
    token = words["ClientToken"]
    if token not in cloud.interfaces:
        (tagged,) = words["TagSpecifications"]
        cloud.interfaces[token] = backend(region).create_network_interface(
            backend(region).get_subnet(words["SubnetId"]),
            None,
            group_ids=words["Groups"],
            tags={tag["Key"]: tag["Value"] for tag in tagged["Tags"]},
            ipv6_address_count=words.get("Ipv6AddressCount"),
        )
    return reply_of_moto("CreateNetworkInterface", {"NetworkInterface": cloud.interfaces[token]})


def delete_network_interface(_: Cloud, region: str, words: Words) -> Response | None:
    there = backend(region)
    interface = there.enis.get(words["NetworkInterfaceId"])
    if interface and interface.instance:
        text = f"Interface: [{interface.id}] in use."
        raise Refused(400, "InvalidNetworkInterface.InUse", text)
    for address in [each for each in there.addresses if interface and each.eni is interface]:
        there.disassociate_address(association_id=address.association_id)
    return None


def describe_subnets(_: Cloud, region: str, words: Words) -> Response:
    filters = {each["Name"]: each["Values"] for each in words.get("Filters", [])}
    told = [
        {
            "SubnetId": subnet.id,
            "VpcId": subnet.vpc_id,
            "CidrBlock": str(subnet.cidr_block),
            "AvailabilityZone": subnet.availability_zone,
            "DefaultForAz": str(subnet.default_for_az) == "true",
            "State": "available",
            "Tags": [{"Key": tag["key"], "Value": tag["value"]} for tag in subnet.get_tags()],
            "Ipv6CidrBlockAssociationSet": [
                {"Ipv6CidrBlock": each["ipv6CidrBlock"], "Ipv6CidrBlockState": each["ipv6CidrBlockState"]}
                for each in subnet.ipv6_cidr_block_associations.values()
            ],
        }
        for subnet in backend(region).describe_subnets(filters=filters)
    ]
    # moto writes the state of IPv6 into itself.
    return reply("ec2", "DescribeSubnets", {"Subnets": told})


def attach_internet_gateway(_: Cloud, region: str, words: Words) -> Response | None:
    if backend(region).describe_internet_gateways(filters={"attachment.vpc-id": [words["VpcId"]]}):
        text = f"Network {words['VpcId']} already has an internet gateway attached"
        raise Refused(400, "InvalidParameterValue", text)
    return None


def delete_security_group(cloud: Cloud, _: str, words: Words) -> Response | None:
    if any(words["GroupId"] in m.groups and m.state != "terminated" for m in cloud.machines.values()):
        raise Refused(400, "DependencyViolation", f"resource {words['GroupId']} has a dependent object")
    return None


def delete_subnet(cloud: Cloud, _: str, words: Words) -> Response | None:
    if any(words["SubnetId"] == m.subnet and m.state != "terminated" for m in cloud.machines.values()):
        raise Refused(400, "DependencyViolation", f"The subnet '{words['SubnetId']}' has dependencies")
    return None


def delete_vpc(_: Cloud, region: str, words: Words) -> Response | None:
    there, id = backend(region), words["VpcId"]
    groups = [g for g in there.describe_security_groups(filters={"vpc-id": [id]}) if g.name != "default"]
    if groups or there.describe_internet_gateways(filters={"attachment.vpc-id": [id]}):
        raise Refused(400, "DependencyViolation", f"The vpc '{id}' has dependencies and cannot be deleted.")
    return None


def get_products(cloud: Cloud, _: str, words: Words) -> Response:
    wanted = {each["Field"]: each["Value"] for each in words["Filters"]}
    assert words["ServiceCode"] == "AmazonEC2"
    told = [
        json.dumps(product)
        for product in _products(cloud)
        if all(product["product"]["attributes"].get(name) == value for name, value in wanted.items())
    ]
    return _page(cloud, "GetProducts", "PriceList", told, words, "pricing")


def list_service_quotas(cloud: Cloud, region: str, words: Words) -> Response:
    told = [
        {
            "ServiceCode": words["ServiceCode"],
            "QuotaCode": code,
            "QuotaName": name,
            "Value": cloud.quotas.get((region, code), PLENTY),
            "Adjustable": True,
        }
        for code, name in goods.QUOTAS.items()
    ]
    return _page(cloud, "ListServiceQuotas", "Quotas", told, words, "servicequotas")


def get_parameter(_: Cloud, __: str, words: Words) -> Response:
    image = goods.PARAMETERS.get(words["Name"])
    if image is None:
        raise Refused(400, "ParameterNotFound", "")
    told = {"Name": words["Name"], "Type": "String", "Value": image[0], "Version": 1}
    return reply("ssm", "GetParameter", {"Parameter": told})


def _may_launch(cloud: Cloud, region: str, words: Words) -> None:
    name, zone = words["InstanceType"], _zone(region, words)
    if words["ImageId"] not in goods.images():
        raise Refused(400, "InvalidAMIID.NotFound", f"The image id '[{words['ImageId']}]' does not exist")
    if name not in cloud.types:
        raise Refused(400, "InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    if (name, zone) in cloud.not_offered:
        text = f"Your requested instance type ({name}) is not supported in {zone}."
        raise Refused(400, "Unsupported", text)
    group = words.get("Placement", {}).get("GroupName")
    if group and (region, group) not in cloud.placement_groups:
        raise Refused(400, "InvalidPlacementGroup.Unknown", f"The Placement Group '{group}' is unknown.")
    (disk,) = words["BlockDeviceMappings"]
    if (
        disk["Ebs"]["VolumeSize"]
        < goods.images()[words["ImageId"]]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"]
    ):
        raise Refused(
            400, "InvalidBlockDeviceMapping", "Volume is smaller than snapshot, expect size >= 75GB"
        )
    _may_attach(region, words)
    if words.get("InstanceMarketOptions", {}).get("MarketType") == "capacity-block":
        _into_block(cloud, region, words)
        return
    _within_quota(cloud, region, words)
    usd = cloud.spot_usd.get((name, zone), goods.SPOT.get(name, "0"))
    most = words.get("InstanceMarketOptions", {}).get("SpotOptions", {}).get("MaxPrice")
    if most is not None and float(most) < float(usd):
        text = f"Your Spot request price of {most} is lower than the minimum of {usd}."
        raise Refused(400, "SpotMaxPriceTooLow", text)
    _take(cloud, name, zone)


def _may_attach(region: str, words: Words) -> None:
    """Which interfaces one launch may have: by AWS's pages on EFA and on the parts of RunInstances."""
    wanted, network = words["NetworkInterfaces"], goods.facts(words["InstanceType"])["NetworkInfo"]
    places = [(each.get("NetworkCardIndex", 0), each["DeviceIndex"]) for each in wanted]
    fast = [each for each in wanted if each.get("InterfaceType", "").startswith("efa")]
    wrong = ""
    if len(set(places)) < len(places) or max(card for card, _ in places) >= network["MaximumNetworkCards"]:
        wrong = "Two interfaces are at one place, or on a network card that there is not."
    elif len(fast) > network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 0):
        wrong = "There are more EFA interfaces than the instance type supports."
    elif wanted[0].get("InterfaceType") == "efa-only" or places[0] != (0, 0):
        wrong = "The primary network interface cannot be an EFA-only one."
    elif len(wanted) > 1 and any(each.get("AssociatePublicIpAddress") for each in wanted):
        wrong = (
            "The associatePublicIPAddress parameter cannot be specified when launching with multiple "
            "network interfaces."
        )
    elif any("NetworkInterfaceId" in each and len(each) > len(FOR_OLD & each.keys()) for each in wanted):
        wrong = "A network interface that is there already may not be specified with what makes a new one."
    if wrong:
        raise Refused(400, "InvalidParameterCombination", wrong)
    for id in [each["NetworkInterfaceId"] for each in wanted if "NetworkInterfaceId" in each]:
        if backend(region).get_network_interface(id).instance:
            raise Refused(400, "InvalidNetworkInterface.InUse", f"Interface: [{id}] in use.")


def _into_block(cloud: Cloud, region: str, words: Words) -> None:
    id = words["CapacityReservationSpecification"]["CapacityReservationTarget"]["CapacityReservationId"]
    reservation = cloud.reservations.get(id)
    if reservation is None or reservation.region != region:
        raise Refused(400, "InvalidCapacityReservationId.NotFound", f"The reservation '{id}' does not exist")
    if words.get("Placement", {}).get("GroupName"):
        text = "You can't use a placement group with a Capacity Block."
        raise Refused(400, "InvalidParameterCombination", text)
    state, offering = reservation.state_at(cloud.now()), reservation.offering
    if state in ("payment-pending", "scheduled"):
        raise Refused(400, "InvalidCapacityReservationState.PendingActivation", f"{id} is not active yet.")
    fits = (words["InstanceType"], _zone(region, words)) == (offering.instance_type, offering.zone)
    if state != "active" or not fits:
        raise Refused(400, "InvalidParameterValue", f"The reservation '{id}' does not match the request.")
    if cloud.within(id) >= offering.nodes:
        raise Refused(400, "ReservationCapacityExceeded", f"The reservation '{id}' has not enough capacity.")


def _within_quota(cloud: Cloud, region: str, words: Words) -> None:
    spot = "InstanceMarketOptions" in words
    family = re.match("[a-z]+", words["InstanceType"])
    code = {("p", True): "L-C4BD4855", ("p", False): "L-417A185B", ("g", True): "L-3819A6DF"}.get(
        (family[0] if family else "", spot), "L-DB2E81BA"
    )
    most = cloud.quotas.get((region, code), PLENTY)
    if goods.vcpus(words["InstanceType"]) <= most:
        return
    if spot:
        raise Refused(400, "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    text = f"You have requested more vCPU capacity than your current vCPU limit of {most:.0f} allows"
    raise Refused(400, "VcpuLimitExceeded", text)


def _take(cloud: Cloud, name: str, zone: str) -> None:
    left = cloud.capacity.get((name, zone))
    if left is None:
        return
    if left < 1:
        text = f"We currently do not have sufficient {name} capacity in the zone you requested ({zone})."
        # As EC2 does: on its own side.
        raise Refused(500, "InsufficientInstanceCapacity", text)
    cloud.capacity[name, zone] = left - 1


def _made(cloud: Cloud, region: str, words: Words) -> Machine:
    there, interfaces = backend(region), words["NetworkInterfaces"]
    tags = {
        each["ResourceType"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]}
        for each in words["TagSpecifications"]
    }
    market = words.get("InstanceMarketOptions", {}).get("MarketType")
    spot = market == "spot"
    user_data = words.get("UserData", "")
    reservation = there.run_instances(
        words["ImageId"],
        1,
        user_data,
        [],
        instance_type=words["InstanceType"],
        is_instance_type_default=False,
        region_name=region,
        security_group_ids=[],
        # moto knows one network card, so on it each has a device of its own.
        nics=[{**interface, "DeviceIndex": device} for device, interface in enumerate(interfaces)],
        tags=tags,
        instance_market_options="spot" if spot else {},
        instance_initiated_shutdown_behavior=words["InstanceInitiatedShutdownBehavior"],
        ipv6_address_count=interfaces[0].get("Ipv6AddressCount"),
        metadata_options=words["MetadataOptions"],
        client_token=words["ClientToken"],
        block_device_mappings=_disks(words),
    )
    (thing,) = reservation.instances
    if market and not spot:
        thing.lifecycle = market
    thing.placement.group_name = words.get("Placement", {}).get("GroupName", "")
    made = [nic.id for nic, asked in zip(thing.nics.values(), interfaces, strict=True) if "SubnetId" in asked]
    there.create_tags(made, tags.get("network-interface", {}))
    machine = Machine(
        id=thing.id,
        region=region,
        zone=_zone(region, words),
        instance_type=words["InstanceType"],
        spot=spot,
        created_at=moto_utcnow(),
        request=words,
        user_data=_decoded(user_data),
        tags=tags["instance"],
        groups=tuple(group.id for group in thing.nics[0].group_set),
        subnet=thing.nics[0].subnet.id,
        address="",
        unseen=cloud.listing_lag,
        fails_with=cloud.fails_after_creation.get(words["InstanceType"]),
    )
    cloud.machines[machine.id] = machine
    machine.become("pending")
    machine.created_at = utcnow()
    machine.address = cloud.on_boot(BootInfo(machine.id, machine.user_data, region, machine.instance_type))
    if elastic := machine.elastic_ip:
        # Where the test has put the machine, there its address leads.
        elastic.public_ip = machine.address
    return machine


def _disks(words: Words) -> list[dict[str, Any]]:
    return [
        {
            "DeviceName": disk["DeviceName"],
            "Ebs": {
                "VolumeSize": disk["Ebs"]["VolumeSize"],
                "VolumeType": disk["Ebs"]["VolumeType"],
                "DeleteOnTermination": disk["Ebs"]["DeleteOnTermination"],
                "Encrypted": False,
                "SnapshotId": None,
                "KmsKeyId": None,
            },
        }
        for disk in words["BlockDeviceMappings"]
    ]


def _decoded(user_data: Any) -> str:
    return base64.b64decode(user_data).decode()


def _zone(region: str, words: Words) -> str:
    primary, there = words["NetworkInterfaces"][0], backend(region)
    if id := primary.get("NetworkInterfaceId"):
        return str(there.get_network_interface(id).subnet.availability_zone)
    return str(there.get_subnet(primary["SubnetId"]).availability_zone)


def _known(cloud: Cloud, region: str, id: str) -> Machine:
    if not re.fullmatch("i-[0-9a-f]{8,17}", id):
        raise Refused(400, "InvalidInstanceID.Malformed", f'Invalid id: "{id}"')
    machine = cloud.machines.get(id)
    if machine is None or machine.region != region:
        raise Refused(400, "InvalidInstanceID.NotFound", f"The instance ID '{id}' does not exist")
    return machine


def _must_be(machine: Machine, *states: str) -> None:
    if machine.state not in states:
        text = f"The instance '{machine.id}' is not in a state from which it can be {states[0]}."
        raise Refused(400, "IncorrectInstanceState", text)


def _change(machine: Machine, previous: str) -> dict[str, Any]:
    return {
        "InstanceId": machine.id,
        "PreviousState": {"Name": previous},
        "CurrentState": {"Name": machine.state},
    }


def _told(action: str, region: str, machine: Machine) -> Response:
    (reservation,) = backend(region).get_reservations_by_instance_ids([machine.id])
    return reply_of_moto(action, reservation)


def _has(cloud: Cloud, region: str, name: str) -> bool:
    return any((name, f"{region}{letter}") not in cloud.not_offered for letter in ZONES)


def _matches(words: Words, name: str, value: str) -> bool:
    filters = [each["Values"] for each in words.get("Filters", []) if each["Name"] == name]
    return all(any(fnmatchcase(value, pattern) for pattern in patterns) for patterns in filters)


def _products(cloud: Cloud) -> Iterable[dict[str, Any]]:
    for name in cloud.types:
        for region in cloud.regions:
            for system, usd in (("Linux", cloud.usd.get(name, "1")), ("Windows", "999.0000000000")):
                attributes = {
                    "instanceType": name,
                    "regionCode": region,
                    "operatingSystem": system,
                    "tenancy": "Shared",
                    "preInstalledSw": "NA",
                    "capacitystatus": "Used",
                    "servicecode": "AmazonEC2",
                }
                dimension = {"unit": "Hrs", "pricePerUnit": {"USD": usd}, "appliesTo": []}
                term = {"priceDimensions": {"S.T.D": dimension}, "termAttributes": {}}
                yield {
                    "product": {"attributes": attributes, "productFamily": "Compute Instance", "sku": "S"},
                    "serviceCode": "AmazonEC2",
                    "terms": {"OnDemand": {"S.T": term}},
                    "version": "20261120000000",
                }


def _page(
    cloud: Cloud, action: str, name: str, told: list[Any], words: Words, service: str = "ec2"
) -> Response:
    start = int(words.get("NextToken") or 0)
    end = start + cloud.page_size
    more = {"NextToken": str(end)} if end < len(told) else {}
    return reply(service, action, {name: told[start:end], **more})


OURS: Final[Mapping[str, Action]] = {
    "AllocateAddress": allocate_address,
    "AttachInternetGateway": attach_internet_gateway,
    "CreateNetworkInterface": create_network_interface,
    "CreatePlacementGroup": create_placement_group,
    "DeleteNetworkInterface": delete_network_interface,
    "DeletePlacementGroup": delete_placement_group,
    "DeleteSecurityGroup": delete_security_group,
    "DeleteSubnet": delete_subnet,
    "DeleteVpc": delete_vpc,
    "DescribeAddresses": describe_addresses,
    "DescribeCapacityBlockOfferings": describe_capacity_block_offerings,
    "DescribeCapacityReservations": describe_capacity_reservations,
    "DescribeImages": describe_images,
    "DescribeInstanceTypeOfferings": describe_instance_type_offerings,
    "DescribeInstanceTypes": describe_instance_types,
    "DescribeInstances": describe_instances,
    "DescribePlacementGroups": describe_placement_groups,
    "DescribeRegions": describe_regions,
    "DescribeSubnets": describe_subnets,
    "DescribeSpotPriceHistory": describe_spot_price_history,
    "GetParameter": get_parameter,
    "GetProducts": get_products,
    "GetSpotPlacementScores": get_spot_placement_scores,
    "ListServiceQuotas": list_service_quotas,
    "PurchaseCapacityBlock": purchase_capacity_block,
    "ReleaseAddress": release_address,
    "RunInstances": run_instances,
    "StartInstances": start_instances,
    "StopInstances": stop_instances,
    "TerminateInstances": terminate_instances,
}
"""What is answered here; what returns None is only checked here, and done by moto."""
