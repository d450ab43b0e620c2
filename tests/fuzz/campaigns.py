"""All campaigns by name."""

from __future__ import annotations

from fuzz import weights
from fuzz.campaign import Campaign
from fuzz.pictures import Pictures

CAMPAIGNS: dict[str, type[Campaign]] = {one.name: one for one in (Pictures, *weights.CAMPAIGNS)}
