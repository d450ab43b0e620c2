"""All campaigns by name."""

from __future__ import annotations

from fuzz import archives, images, names, stores, texts, weights
from fuzz.campaign import Campaign

_MODULES = (images, weights, stores, archives, texts, names)
CAMPAIGNS: dict[str, type[Campaign]] = {
    one.name: one for module in _MODULES for one in module.CAMPAIGNS
}
