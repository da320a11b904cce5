"""The prices of Amazon EC2: on demand by region, and Spot with the band of the Spot Instance Advisor.

On-demand prices are the bulk price list of a region, a CSV of hundreds of megabytes without an account:
https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html
Its columns ``GPU`` and ``GPU Memory`` are of the whole instance, fractions such as 0.125 included; which chip
it is they do not say, that is known by the instance family:
https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html
A row of ``MarketOption`` CapacityBlock has a price of zero or of the operating system alone: what a Capacity
Block costs is not in the list, so such a row only tells what the instance is.

Spot prices are those behind https://aws.amazon.com/ec2/spot/pricing/, one for a region and not for a zone.
AWS does not document that file. Its predecessor, spot-price.s3.amazonaws.com/spot.js, has not changed since
2024-05-13 and is not read; should this one stop in the same way, no offers are made of it.
The band is of https://aws.amazon.com/ec2/spot/instance-advisor/: which share of the instances was interrupted
during the last month. It is no rate per hour. Without these two files there are still on-demand prices.

What Spot instances have cost, zone by zone for 90 days, EC2 tells only to an account; it is asked with boto3,
which is not installed by default. Who asks must be allowed ec2:DescribeInstanceTypes and
ec2:DescribeSpotPriceHistory.

Without ``--region`` the regions of the setting ``catalog_regions`` are read, or four that most people want.
Not in any of these: capacity, Capacity Blocks, Savings Plans, China, and what is sold only to order.
Facts as of 2026-11-21.
"""

from gpucloud_aws.adapter import Aws

__all__ = ["Aws"]
