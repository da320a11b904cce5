"""The caps of the configuration as they hold at this moment."""

from __future__ import annotations

from datetime import UTC, datetime

from gpucloud.config import Config
from gpucloud.store.budget import Cap


def caps(config: Config, now: datetime) -> tuple[Cap, ...]:
    """Every cap that is set. Days and months are those of UTC. Raises ``ConfigError``."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    found = []
    for name, since in (("launch", None), ("day", day), ("month", month)):
        usd = config.get(f"budget.{name}")
        if usd is not None:
            found.append(Cap(name, usd, since))
    for project, usd in config.get("budget.projects").items():
        found.append(Cap("month", usd, month, project))
    return tuple(found)
