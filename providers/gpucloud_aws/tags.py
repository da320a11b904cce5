"""Tags as EC2 writes them: a list of keys and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types_boto3_ec2.type_defs import TagTypeDef


def listed(tags: Mapping[str, str]) -> list[TagTypeDef]:
    """``tags`` as a request takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def read(told: Iterable[Any]) -> dict[str, str]:
    """The tags in a reply. A key may come without a value."""
    return {tag.get("Key", ""): tag.get("Value", "") for tag in told}
