"""Which image an instance is made of: one that is named, or the newest that suits its accelerator.

AWS and Canonical publish the newest images of each region as parameters (as of 2026-11-21):
https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html
https://awsdocs-neuron.readthedocs-hosted.com/en/latest/dlami/index.html
https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
All of these have cloud-init and the login user ``ubuntu``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gpucloud.errors import NotFound, Rejected
from gpucloud.replies import Rows
from gpucloud_aws.api import Image, InstanceType

if TYPE_CHECKING:
    from gpucloud_aws.account import Account

NVIDIA: Final = "/aws/service/deeplearning/ami/{}/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
NEURON: Final = "/aws/service/neuron/dlami/multi-framework/ubuntu-24.04/latest/image_id"
UBUNTU: Final = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
CANONICAL: Final = {"x86_64": "amd64", "arm64": "arm64"}
"""What Canonical calls the architectures of EC2."""

NEURON_FAMILIES: Final = ("inf", "trn")
BY_PARAMETER: Final = "resolve:ssm:"
"""How EC2 itself writes an image that a parameter names."""

UBUNTU_USER: Final = "ubuntu"
USERS: Final = (
    ("ubuntu", UBUNTU_USER),
    ("debian", "admin"),
    ("amazon linux", "ec2-user"),
    ("amzn", "ec2-user"),
    ("al2023", "ec2-user"),
    ("rhel", "ec2-user"),
    ("rocky", "rocky"),
)
"""Login users by what the name of an image has in it; the first that is found counts."""


def find(account: Account, region: str, kind: InstanceType, wanted: str | None) -> Image:
    """The image for an instance type. Raises ``Rejected`` for one that there is not, and what a read raises.

    ``wanted`` is an image's id, or a parameter as ``/aws/service/...``, also after ``resolve:ssm:``.
    """
    name = (wanted or _parameter(kind)).removeprefix(BY_PARAMETER)
    with account.translated(region):
        if name.startswith("/"):
            name = _resolved(account, region, name)
        told = account.ec2(region).describe_images(ImageIds=[name]).get("Images", [])
        found = Rows(account.provider).read(Image.model_validate, told)
    if not found:
        raise _unknown(account.provider, region, name)
    return found[0]


def user_of(image: Image) -> str:
    """Who logs in, as far as the name of the image tells."""
    name = image.name.lower()
    return next((user for word, user in USERS if word in name), UBUNTU_USER)


def _parameter(kind: InstanceType) -> str:
    architecture = next((each for each in kind.processor.architectures if each in CANONICAL), "x86_64")
    if kind.instance_type.startswith(NEURON_FAMILIES):
        return NEURON
    if kind.gpus and any(device.maker.upper() == "NVIDIA" for device in kind.gpus.devices):
        return NVIDIA.format(architecture)
    return UBUNTU.format(CANONICAL[architecture])


def _resolved(account: Account, region: str, name: str) -> str:
    try:
        with account.translated(region):
            return account.parameters(region).get_parameter(Name=name)["Parameter"].get("Value", "")
    except NotFound as error:
        raise _unknown(account.provider, region, name) from error


def _unknown(provider: str, region: str, name: str) -> Rejected:
    return Rejected(
        f"{provider} has no image {name} in {region}",
        provider=provider,
        why="images and their parameters are of one region",
        hint="name one of that region with --image ami-...",
    )
