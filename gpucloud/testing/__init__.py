"""What adapter authors test with: the contract as tests, and canned replies for the HTTP client."""

from gpucloud.testing.catalog import CatalogConformance, SpotHistoryConformance
from gpucloud.testing.conformance import REHEARSAL_TESTS, RENTING_TESTS, ProviderConformance
from gpucloud.testing.responses import Responses

__all__ = [
    "REHEARSAL_TESTS",
    "RENTING_TESTS",
    "CatalogConformance",
    "ProviderConformance",
    "Responses",
    "SpotHistoryConformance",
]
