"""The making of one instance: all that RunInstances is asked for, and what it needs to be there first.

RunInstances makes everything or nothing: the root volume and the network interfaces that it makes end with
the instance. Its client token is ``spec.token``, so that the same launch, sent again, is answered with the
same instance. What nodes need beside it is made before, and taken back when surely nothing was launched.
https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html (as of 2026-11-21)
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from gpucloud.cloud_init import user_data
from gpucloud.errors import BadReply, NotFound, ProviderError, Unreachable
from gpucloud.model import Market, Offer
from gpucloud.provider import LaunchSpec
from gpucloud.replies import Rows
from gpucloud_aws import addresses, cards, groups, images, machines, network, tags
from gpucloud_aws.api import Image, InstanceType, Machine
from gpucloud_aws.errors import MISMATCH
from gpucloud_aws.quotas import quota_of

if TYPE_CHECKING:
    from types_boto3_ec2.type_defs import RunInstancesRequestTypeDef

    from gpucloud_aws.account import Account

DISK_GIB: Final = 100
"""How large the root volume is when nobody says: the images alone take up to 75 GiB."""

TAGGED: Final = ("instance", "volume", "network-interface")


def run(account: Account, region: str, offer: Offer, spec: LaunchSpec) -> Machine:
    """Launch one. Raises as ``Provider.launch`` does."""
    kind = _kind(account, region, offer.instance_type)
    image = images.find(account, region, kind, spec.image)
    together = spec.nodes > 1
    place = network.prepare(account, region, offer.zone, spec.ssh_from, together=together)
    # A block has its instances close to each other, and takes no group.
    clustered = together and offer.market is not Market.RESERVED and "cluster" in kind.groups.supported
    group = groups.ensure(account, region, spec) if clustered else None
    quota, undo, reached = quota_of(offer.instance_type, offer.market), ExitStack(), None
    if group:
        undo.callback(groups.remove, account, region, group)
    try:
        if together and len(kind.network.efa_cards) > 1:
            reached = addresses.ensure(account, region, spec, place, undo)
        request = _request(offer, spec, kind, image, place, group, reached)
        with account.translated(region, quota):
            told = account.ec2(region).run_instances(**request).get("Instances", [])
    except ProviderError as error:
        if error.vendor_code == MISMATCH:
            machine = _earlier(account, region, spec.token, error)
            # It was launched without what this try has made.
            addresses.undone(account, region, undo, error)
            return machine
        # Without an answer that can be read the instance may be there, or what it needs, and after an
        # earlier try, too.
        if isinstance(error, Unreachable | BadReply) or (reached and reached.earlier):
            error.outcome_unknown = True
        if not error.outcome_unknown:
            addresses.undone(account, region, undo, error)
        raise
    return _made(account.provider, told)


def _kind(account: Account, region: str, name: str) -> InstanceType:
    with account.translated(region):
        told = account.ec2(region).describe_instance_types(
            InstanceTypes=[name],  # type: ignore[list-item] # The stubs list those that they know.
        )["InstanceTypes"]
        found = Rows(account.provider).read(InstanceType.model_validate, told)
    if not found:
        raise NotFound(f"{account.provider} has no {name} in {region}", provider=account.provider)
    return found[0]


def _request(
    offer: Offer,
    spec: LaunchSpec,
    kind: InstanceType,
    image: Image,
    place: network.Place,
    group: str | None,
    reached: addresses.Reached | None,
) -> RunInstancesRequestTypeDef:
    carried = {**spec.tags, "Name": f"gpucloud {spec.cluster}", machines.LOGIN: images.user_of(image)}
    if reached:
        carried[machines.ADDRESS] = reached.address
        interfaces = cards.every(kind, place, reached.interface)
    else:
        interfaces = cards.single(kind, place, together=spec.nodes > 1)
    tagged = tags.listed(carried)
    spot = offer.market is Market.SPOT
    request: dict[str, Any] = {
        "ClientToken": spec.token,
        "ImageId": image.id,
        "InstanceType": offer.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": user_data(spec),
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "BlockDeviceMappings": [
            {
                "DeviceName": image.root_device,
                "Ebs": {
                    "VolumeType": "gp3",
                    "VolumeSize": max(spec.disk_gib or DISK_GIB, image.size_gib),
                    "DeleteOnTermination": True,
                },
            }
        ],
        "NetworkInterfaces": interfaces,
        "TagSpecifications": [
            {"ResourceType": what, "Tags": tagged}
            for what in (*TAGGED, *(["spot-instances-request"] if spot else []))
        ],
    }
    if group:
        request["Placement"] = {"GroupName": group}
    if spot:
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        if spec.max_usd_per_hour is not None:
            options["MaxPrice"] = f"{spec.max_usd_per_hour:f}"
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    if offer.market is Market.RESERVED:
        request["InstanceMarketOptions"] = {"MarketType": "capacity-block"}
        request["CapacityReservationSpecification"] = {
            "CapacityReservationTarget": {"CapacityReservationId": spec.reservation}
        }
    # Made piece by piece, it has the shape that the stubs describe.
    return request  # type: ignore[return-value]


def _earlier(account: Account, region: str, token: str, refusal: ProviderError) -> Machine:
    """The instance of a token that was used before; its request had another time left in it."""
    found = machines.of_token(account, region, token)
    if found is None:
        refusal.outcome_unknown = True
        raise refusal
    return found


def _made(provider: str, told: Any) -> Machine:
    try:
        (entry,) = told
        return Machine.model_validate(entry)
    except ValueError as error:
        bad = Rows(provider).bad(str(error))
        bad.outcome_unknown = True
        raise bad from error
