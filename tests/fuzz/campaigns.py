"""All campaigns by name."""

from __future__ import annotations

from fuzz import pictures, stores, weights
from fuzz.campaign import Campaign

_ALL = (*pictures.CAMPAIGNS, *weights.CAMPAIGNS, *stores.CAMPAIGNS)
CAMPAIGNS: dict[str, type[Campaign]] = {one.name: one for one in _ALL}
