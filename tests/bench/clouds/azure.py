"""Microsoft: 60 regions, in each the sizes, the retail prices of those with GPUs, and the quotas.

How long the list of sizes is in life: over 20 MB for all regions in August 2021 (azure-rest-api-specs 15672),
and 2 to 4 MB for one region in November 2024, as somebody of Microsoft said (azure-cli 30389).
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator
from itertools import product
from typing import Any, Final

from gpucloud_azure.api import REGIONS as KNOWN
from gpucloud_azure.api import SIZES
from tests.bench.clouds.server import Asked
from tests.harness.azure import SUBSCRIPTION, market
from tests.harness.azure.server import TENANT, TOKEN

COMPRESSES: Final = True
REGIONS: Final = tuple([*KNOWN, *(f"region{number}" for number in range(60))][:60])
HOME: Final = "southcentralus"
PROVIDER: Final = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute"
PRICES: Final = "/api/retail/prices"
FAMILIES: Final = 150
OTHERS: Final = 60
"""How many sizes have a price and a part of a GPU, or GPUs of long ago."""

NAMES: Final = tuple(name.replace("standard", "Standard") for name in SIZES)
METERS: Final = tuple(product(("", " Windows"), ("", " Spot", " Low Priority")))

MORE: Final = {
    "OSVhdSizeMB": "1047552",
    "MaxDataDiskCount": "32",
    "MemoryPreservingMaintenanceSupported": "True",
    "VMDeploymentTypes": "IaaS",
    "vCPUsAvailable": "96",
    "vCPUsPerCore": "2",
    "ACUs": "195",
    "CombinedTempDiskAndCachedIOPS": "308000",
    "CombinedTempDiskAndCachedReadBytesPerSecond": "1560281088",
    "CombinedTempDiskAndCachedWriteBytesPerSecond": "1560281088",
    "CachedDiskBytes": "1717986918400",
    "UncachedDiskIOPS": "80000",
    "UncachedDiskBytesPerSecond": "1258291200",
    "EphemeralOSDiskSupported": "True",
    "SupportedEphemeralOSDiskPlacements": "ResourceDisk,CacheDisk",
    "EncryptionAtHostSupported": "True",
    "CapacityReservationSupported": "False",
    "RdmaEnabled": "False",
    "MaxNetworkInterfaces": "8",
    "MaxWriteAcceleratorDisksAllowed": "0",
    "DiskControllerTypes": "SCSI,NVMe",
    "NvmeDiskSizeInMiB": "0",
    "TrustedLaunchDisabled": "False",
    "HibernationSupported": "True",
    "UltraSSDAvailable": "True",
}


def key(asked: Asked) -> Hashable:
    """Which reply is meant."""
    region = re.search("(?:location|armRegionName) eq '([a-z0-9]+)'", asked.query.get("$filter", ""))
    return asked.path, region[1] if region else ""


def replies(url: str, sizes: str) -> dict[Hashable, bytes]:
    """All there are."""
    sign_in = f"/{TENANT}/oauth2/v2.0/token"
    discovery = {
        "authorization_endpoint": f"{url}/{TENANT}/oauth2/v2.0/authorize",
        "token_endpoint": f"{url}{sign_in}",
        "issuer": f"{url}/{TENANT}/v2.0",
    }
    token = {"token_type": "Bearer", "expires_in": 3600, "access_token": TOKEN}
    locations = {"value": [{"name": name, "displayName": name} for name in REGIONS]}
    made: dict[Hashable, Any] = {
        (f"/{TENANT}/v2.0/.well-known/openid-configuration", ""): discovery,
        (sign_in, ""): token,
        (f"/subscriptions/{SUBSCRIPTION}/locations", ""): locations,
    }
    told = {key: _json(body) for key, body in made.items()}
    prices = {"BillingCurrency": "USD", "Items": list(_prices()), "NextPageLink": None}
    usages = [market.usage(f"standardFamily{number}", 0, 1000) for number in range(FAMILIES)]
    of_home = (
        ((f"{PROVIDER}/skus", HOME), _json({"value": list(_skus(int(sizes)))})),
        ((PRICES, HOME), _json(prices)),
        ((f"{PROVIDER}/locations/{HOME}/usages", ""), _json({"value": usages})),
    )
    for ((path, filtered), body), region in product(of_home, REGIONS):
        where = path.replace(HOME, region), filtered.replace(HOME, region)
        told[where] = body.replace(HOME.encode(), region.encode())
    return told


def _json(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _skus(sizes: int) -> Iterator[market.Row]:
    """Those with GPUs, and plain ones."""
    for name, size in zip(NAMES, SIZES.values(), strict=True):
        yield market.sku(HOME, name, 24, size.gpus, size.memory_gib, "standardNCADSA100v4Family", **MORE)
    for number in range(sizes - len(SIZES)):
        name = f"Standard_D{number}ads_v6"
        yield market.sku(HOME, name, 4, 0, 16, "standardDadsv6Family", **MORE)


def _prices() -> Iterator[market.Row]:
    usual = market.prices(HOME)[0]
    names = (*NAMES, *(f"Standard_NV{number}s_v4" for number in range(OTHERS)))
    for number, (name, (system, kind)) in enumerate(product(names, METERS)):
        yield {
            **usual,
            "meterId": f"{number:08x}-0000-0000-0000-000000000000",
            "meterName": name.removeprefix("Standard_").replace("_", " ") + kind,
            "productName": f"Virtual Machines Series{system}",
            "armSkuName": name,
        }
