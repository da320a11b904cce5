"""Amazon EC2: instances with GPUs, Trainium and Inferentia, on demand and on Spot; and its public prices.

Renting takes an account, of which boto3 finds the login where AWS's own tools keep it, and the extra
``gpucloud[aws]``. All regions that are open to the account are asked, or those of the setting ``regions``.
Who rents must be allowed, of ``ec2:``, DescribeRegions, DescribeInstanceTypes,
DescribeInstanceTypeOfferings, DescribeSpotPriceHistory, DescribeInstances, DescribeImages, DescribeSubnets,
DescribeSecurityGroups, DescribeVolumes, DescribeNetworkInterfaces, DescribeAddresses,
DescribePlacementGroups, CreateSecurityGroup, AuthorizeSecurityGroupIngress, RunInstances, CreateTags,
TerminateInstances, StopInstances and StartInstances, and ssm:GetParameter. What else is asked,
pricing:GetProducts, servicequotas:ListServiceQuotas and ec2:GetSpotPlacementScores, is done without, with a
warning. Who reserves must be allowed ec2:DescribeCapacityBlockOfferings, ec2:PurchaseCapacityBlock and
ec2:DescribeCapacityReservations as well.

- Prices on demand are of GetProducts, those on Spot of DescribeSpotPriceHistory, zone by zone. Whether there
  is capacity EC2 tells only at launch; placement scores, which are rationed, say how likely it is.
- A launch leaves no key pair and puts no role on the machine: cloud-init brings our key and its host key.
  The image is the newest AWS Deep Learning Base AMI for NVIDIA, the Neuron one for Trainium and Inferentia,
  Ubuntu for all others. The disk has 100 GiB unless another size is asked for.
- An instance that shuts itself down is terminated, with its disk. Spot instances are bought once and cannot
  be stopped. Missing capacity comes with status 500, and is not asked for again.
- Capacity Blocks are paid as a whole when they are bought, and AWS begins to end the instances in one thirty
  minutes before its end. Those of UltraServers, of several pieces and in Local Zones are left out.
- Networks are the default ones; where an account has none, there is a VPC ``gpucloud`` in 10.97.0.0/16.
  Clusters stand in a placement group. Where the type has several network cards with EFA, each node has all of
  them and, as EC2 gives no public address to several interfaces, an Elastic IP of its own. That takes, of
  ``ec2:``, AllocateAddress, AssociateAddress, DisassociateAddress, ReleaseAddress, CreateNetworkInterface and
  DeleteNetworkInterface, and the quota EC2-VPC Elastic IPs, which begins at five in a region. Without these a
  node has one EFA card, and a warning says so. The address bills until it is released: with the instance, or,
  when that has ended by itself, by ``gpucloud fsck --fix``. What it costs the listing does not tell.
- P3, G3 and G4ad instances, and Gaudi, get an image without a driver that suits them: name one with --image.

On-demand prices without an account are the bulk price list of a region, a CSV of hundreds of megabytes:
https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html
Its columns ``GPU`` and ``GPU Memory`` are of the whole instance, fractions such as 0.125 included; which chip
it is they do not say, that is known by the instance family:
https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html
A row of ``MarketOption`` CapacityBlock has a price of zero or of the operating system alone: what a Capacity
Block costs is not in the list, so such a row only tells what the instance is.

Spot prices without an account are those behind https://aws.amazon.com/ec2/spot/pricing/, one for a region and
not for a zone. AWS does not document that file. Its predecessor, spot-price.s3.amazonaws.com/spot.js, has not
changed since 2024-05-13 and is not read; should this one stop in the same way, no offers are made of it.
The band is of https://aws.amazon.com/ec2/spot/instance-advisor/: which share of the instances was interrupted
during the last month. It is no rate per hour. Without these two files there are still on-demand prices.

What Spot instances have cost, zone by zone for 90 days, EC2 tells only to an account. Who asks must be
allowed ec2:DescribeInstanceTypes and ec2:DescribeSpotPriceHistory.

Without ``--region`` the catalogue is of the regions of the setting ``catalog_regions``, or of four that most
people want. Not in any of these: Savings Plans, Local and Wavelength Zones, prices on demand in China, and
what is sold only to order. Capacity Blocks are told apart, by ``blocks``.
Facts as of 2026-11-21.
"""

from gpucloud_aws.adapter import Aws

__all__ = ["Aws"]
