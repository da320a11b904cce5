"""What the cloud of the tests sells: real instance types, as moto has them from EC2, at invented prices."""

from __future__ import annotations

from typing import Any, Final

from moto.ec2.models.instance_types import INSTANCE_TYPES

NAMES: Final = (
    "c6i.large",
    "g5.xlarge",
    "g5g.xlarge",
    "g6.12xlarge",
    "g6f.large",
    "inf2.xlarge",
    "p4d.24xlarge",
    "p5.48xlarge",
    "trn1.32xlarge",
)

USD: Final = {
    "c6i.large": "0.0850000000",
    "g5.xlarge": "1.0060000000",
    "g5g.xlarge": "0.4200000000",
    "g6.12xlarge": "4.6016000000",
    "inf2.xlarge": "0.7582000000",
    "p4d.24xlarge": "21.9576420000",
    "p5.48xlarge": "55.0400000000",
    "trn1.32xlarge": "21.5000000000",
}
"""For an hour on demand, in every region."""

SPOT: Final = {
    "c6i.large": "0.031200",
    "g5.xlarge": "0.402100",
    "g5g.xlarge": "0.168000",
    "g6.12xlarge": "1.902000",
    "inf2.xlarge": "0.227500",
    "p4d.24xlarge": "9.874300",
    "p5.48xlarge": "21.345600",
    "trn1.32xlarge": "6.450000",
}
"""For an hour on Spot, in every zone."""

QUOTAS: Final = {
    "L-DB2E81BA": "Running On-Demand G and VT instances",
    "L-417A185B": "Running On-Demand P instances",
    "L-2C3B7624": "Running On-Demand Trn instances",
    "L-1945791B": "Running On-Demand Inf instances",
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    "L-3819A6DF": "All G and VT Spot Instance Requests",
    "L-7212CCBC": "All P4, P3 and P2 Spot Instance Requests",
    "L-C4BD4855": "All P5 Spot Instance Requests",
    "L-6B0D517C": "All Trn Spot Instance Requests",
    "L-B5D1601B": "All Inf Spot Instance Requests",
    "L-0263D0A3": "EC2-VPC Elastic IPs",
}

PARAMETERS: Final = {
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id": (
        "ami-00000000000000a01",
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261113",
        75,
    ),
    "/aws/service/deeplearning/ami/arm64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id": (
        "ami-00000000000000a02",
        "Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261113",
        75,
    ),
    "/aws/service/neuron/dlami/multi-framework/ubuntu-24.04/latest/image_id": (
        "ami-00000000000000a03",
        "Deep Learning AMI Neuron (Ubuntu 24.04) 20261106",
        115,
    ),
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id": (
        "ami-00000000000000a04",
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261110",
        8,
    ),
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id": (
        "ami-00000000000000a05",
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20261110",
        8,
    ),
}
"""Images by the parameter that names them: id, name and size in GiB."""

AMAZON_LINUX: Final = ("ami-00000000000000a06", "al2023-ami-2023.9.20261105.0-kernel-6.1-x86_64", 8)
"""An image that no parameter here names."""


def facts(name: str) -> dict[str, Any]:
    """What EC2 tells of an instance type."""
    told: dict[str, Any] = INSTANCE_TYPES[name]
    return told


def vcpus(name: str) -> int:
    """How many an instance type has."""
    return int(facts(name)["VCpuInfo"]["DefaultVCpus"])


def images() -> dict[str, dict[str, Any]]:
    """Every image by its id, as DescribeImages tells it."""
    return {
        id: {
            "ImageId": id,
            "Name": name,
            "State": "available",
            "RootDeviceName": "/dev/sda1",
            "RootDeviceType": "ebs",
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": size, "VolumeType": "gp3"}},
                {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            ],
        }
        for id, name, size in (*PARAMETERS.values(), AMAZON_LINUX)
    }
