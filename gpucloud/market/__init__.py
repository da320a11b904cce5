"""Ask every provider at once, remember what they said, filter, rank, and say what was left out."""

from gpucloud.market.ask import ask_all, list_instances, list_side_resources, to_failure
from gpucloud.market.order import grouped, ordered
from gpucloud.market.search import Search, SearchResult, Terms, search

__all__ = [
    "Search",
    "SearchResult",
    "Terms",
    "ask_all",
    "grouped",
    "list_instances",
    "list_side_resources",
    "ordered",
    "search",
    "to_failure",
]
