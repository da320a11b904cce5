"""Which of CloudRift's images a machine starts from."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gpucloud.replies import release_of

if TYPE_CHECKING:
    from gpucloud_cloudrift.api import Image, Recipe, Types

DRIVER: Final = "nvidia-driver"
CLOSED_DRIVER: Final = "nvidia-driver-proprietary"
AMD_DRIVER: Final = "amd-driver"
CLOSED_ONLY: Final = "ProprietaryOnly"


def chosen(recipes: Iterable[Recipe], types: Types, instance_type: str, wanted: str | None) -> Image | None:
    """The image of a name, or the newest Ubuntu with a driver that starts on a type; ``None`` without one."""
    machines = [recipe for recipe in recipes if recipe.details.virtual_machine]
    if wanted:
        fit = [recipe for recipe in machines if recipe.name.casefold() == wanted.casefold()]
    else:
        drivers = _drivers_for(types, instance_type)
        fit = [
            recipe
            for recipe in machines
            if "Ubuntu" in recipe.name and drivers == {tag for tag in recipe.tags if "-driver" in tag}
        ]
    newest = max(fit, key=lambda recipe: release_of(recipe.name), default=None)
    return newest.details.virtual_machine if newest else None


def _drivers_for(types: Types, instance_type: str) -> set[str]:
    """The tags of the images that start on the machines of a type."""
    from gpucloud_cloudrift.api import InstanceType

    for row in types.instance_types:
        with suppress(ValueError):
            kind = InstanceType.model_validate(row)
            if any(isinstance(cut, dict) and cut.get("name") == instance_type for cut in kind.variants):
                if (kind.manufacturer or "").upper() == "AMD":
                    return {AMD_DRIVER}
                if kind.nvidia_kernel_module_support == CLOSED_ONLY:
                    return {DRIVER, CLOSED_DRIVER}
    return {DRIVER}
