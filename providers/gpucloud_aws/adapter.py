"""Amazon EC2 as a provider."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from gpucloud.errors import AuthError, NotFound
from gpucloud.model import (
    Block,
    Instance,
    InstanceRef,
    Market,
    Offer,
    Requirements,
    Reservation,
    SideResource,
    Window,
)
from gpucloud.provider import (
    Fuse,
    Kind,
    LaunchSpec,
    Provider,
    ProviderSettings,
    Reach,
    StoppedBilling,
    Traits,
)
from gpucloud_aws.catalog import Catalog
from gpucloud_aws.errors import FORBIDDEN

log = logging.getLogger(__name__)

METADATA: Final = "http://169.254.169.254/latest"

# Metadata are told only to who has a token, which is had by PUT. Each path is there once there is something.
NOTICE_PROBE: Final = f"""\
ttl='X-aws-ec2-metadata-token-ttl-seconds: 60'
if command -v curl >/dev/null 2>&1; then
  token=$(curl -fsS -m 1 -X PUT -H "$ttl" {METADATA}/api/token 2>/dev/null) || exit 1
  told() {{ curl -fsS -m 1 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$1" 2>/dev/null; }}
else
  token=$(wget -q -T 1 -t 1 -O - --method=PUT --header="$ttl" {METADATA}/api/token 2>/dev/null) || exit 1
  told() {{ wget -q -T 1 -t 1 -O /dev/null --header="X-aws-ec2-metadata-token: $token" "$1" 2>/dev/null; }}
fi
told {METADATA}/meta-data/spot/instance-action && exit
told {METADATA}/meta-data/events/recommendations/rebalance && exit 3
exit 1
"""


class Aws(Catalog, Provider):
    """EC2 instances, on demand and on Spot, in all regions of the account.

    The fuse is B: launched so that a shutdown terminates, an instance that powers itself off is gone, with
    its disk, and it needs no credential for that. A Spot instance is bought once, and cannot be stopped.
    Capacity Blocks are reserved, and launched into once they have begun.
    """

    rehearsable = True
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT, Market.RESERVED}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.HOST,
        billing_grain_s=1,
        billing_minimum_s=60,
        billed_while_stopped=StoppedBilling.STORAGE,
        name_length=255,
        idempotent_launch=True,
        # What EC2 lists is consistent in the end, which in practice takes seconds.
        listing_lag_s=30,
        interruption_notice_s=120,
        notice_probe=NOTICE_PROBE,
        plants_host_key=True,
        self_end="sudo -n poweroff || poweroff",
        console="https://{region}.console.aws.amazon.com/ec2/home#InstanceDetails:instanceId={id}",
        end_command="aws ec2 terminate-instances --region {region} --instance-ids {id}",
        firewalled=True,
    )

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """When AWS's own tools have a login, or the settings name a profile or regions."""
        from gpucloud_aws.account import has_login

        return has_login(settings)

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """What is sold in the regions of the account, or those of the setting ``regions``."""
        from gpucloud_aws import offers

        self._account.check()
        return offers.read(self._account, requirements, self._asked(requirements))

    def advise(self, offers: Sequence[Offer], nodes: int) -> Iterable[Offer]:
        """Placement scores and advisor bands of Spot offers."""
        from gpucloud_aws import advice

        return advice.read(self._account, offers, nodes, self.bands)

    def blocks(self, wanted: Requirements, window: Window) -> Iterable[Block]:
        """The Capacity Blocks that are sold in the regions that ``offers`` is of."""
        from gpucloud_aws import blocks

        self._account.check()
        return blocks.sold(self._account, wanted, window, self._asked(wanted), self.settings.rates)

    def reserve(self, block: Block, spec: LaunchSpec) -> Reservation:
        """Buy a Capacity Block, which is paid as a whole; the request is sent once."""
        from gpucloud_aws import blocks

        return blocks.buy(self._account, block, spec)

    def reservations(self) -> Iterable[Reservation]:
        """All Capacity Blocks with our tag, in every region of the account."""
        from gpucloud_aws import blocks

        self._account.check()
        return blocks.bought(self._account)

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Launch one instance; the client token makes a second call of the same launch harmless."""
        from gpucloud_aws import launch, machines

        region = offer.region or ""
        return machines.to_instance(self.name, region, launch.run(self._account, region, offer, spec))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance, for about an hour also after its end."""
        from gpucloud_aws import machines

        machine, region = machines.one(self._account, ref)
        return machines.to_instance(self.name, region, machine)

    def instances(self) -> Iterable[Instance]:
        """Everything with our tag, in every region of the account."""
        from gpucloud_aws import machines

        self._account.check()
        return machines.everywhere(
            self._account,
            lambda client, region: [
                machines.to_instance(self.name, region, machine)
                for machine in machines.ours(client, self.name)
            ],
        )

    def terminate(self, ref: InstanceRef) -> None:
        """End one; its volume and interfaces go with it, and its placement group with the last in it.

        An Elastic IP of its own is released, too. The interface that had it is left for ``remove``.
        """
        from gpucloud_aws import addresses, groups, machines

        group, address, region = "", None, ref.region
        # What has just been made may not be known yet where it is looked up, and can be ended all the same.
        with suppress(NotFound):
            machine, region = machines.one(self._account, ref)
            group, address = machine.placement.group, machine.tags.get(machines.ADDRESS)
        if region is None:
            return
        with suppress(NotFound), self._account.translated(region):
            self._account.ec2(region).terminate_instances(InstanceIds=[ref.id])
        if address:
            addresses.release(self._account, region, address, ended=ref.id)
        groups.remove(self._account, region, group)

    def stop(self, ref: InstanceRef) -> None:
        """Stop one that was bought on demand; its disk bills on. Raises ``Unsupported`` for one on Spot."""
        from gpucloud_aws import machines

        machine, region = machines.one(self._account, ref)
        with self._account.translated(region):
            self._account.ec2(region).stop_instances(InstanceIds=[machine.id])

    def start(self, ref: InstanceRef) -> None:
        """Start one again, at another address unless it has an Elastic IP."""
        from gpucloud_aws import machines

        machine, region = machines.one(self._account, ref)
        with self._account.translated(region):
            self._account.ec2(region).start_instances(InstanceIds=[machine.id])

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Let networks reach SSH of all that has the security group of an instance."""
        from gpucloud_aws import machines, network

        machine, region = machines.one(self._account, ref)
        network.admit(self._account, region, machine.groups, networks)

    def side_resources(self) -> Iterable[SideResource]:
        """Volumes, network interfaces, Elastic IPs and placement groups of instances, in every region."""
        from gpucloud_aws import beside

        return beside.of_instances(self._account)

    def remove(self, resource: SideResource) -> None:
        """Delete one; what its instance still uses stays listed."""
        from gpucloud_aws import beside

        beside.remove(self._account, resource)

    def shared_resources(self) -> Iterable[SideResource]:
        """Security groups, and networks where there was no default one."""
        from gpucloud_aws import beside

        return beside.shared(self._account)

    def remove_shared(self, resource: SideResource) -> None:
        """Delete one. Raises ``Rejected`` while an instance uses it."""
        from gpucloud_aws import beside

        beside.remove_shared(self._account, resource)

    def _asked(self, requirements: Requirements) -> list[str]:
        """The regions of the account that both the settings and the requirements want."""
        set_ones = tuple(name.lower() for name in self.settings.names("regions"))
        try:
            opened = self._account.opened()
        except AuthError as error:
            if not (set_ones and error.vendor_code in FORBIDDEN):
                raise
            log.warning(
                "%s: ec2:DescribeRegions is not allowed: the regions are those of the settings", self.name
            )
            opened = list(set_ones)
        for names in (set_ones, requirements.regions):
            wanted = tuple(name.lower() for name in names)
            opened = [region for region in opened if not wanted or _is_meant(region, wanted)]
        return opened


def _is_meant(region: str, names: Sequence[str]) -> bool:
    """Whether one of the names is the region, begins its name as a word, or is a zone of it."""
    return any(region == name or region.startswith(f"{name}-") or name[:-1] == region for name in names)
