"""What a run is about: how its events, tags and artifacts name it."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.catalogue.names import name_region, region_name


class Subject(NamedTuple):
    """A region or structure, or another source."""

    kind: str  # region or source
    id: str  # lowercase letters, digits and -
    name: str

    @property
    def title(self) -> str:
        """Its name, after the id of a region: `10000002 The Forge`."""
        return name_region(int(self.id)) if self.kind == "region" else self.name

    @property
    def resource(self) -> dict[str, str]:
        """The resource of its events."""
        return {"prefect.resource.id": f"market.{self.kind}.{self.id}", "prefect.resource.name": self.name}


def find_subject(given: Mapping[str, Any]) -> Subject:
    """Return the subject in a flow run's parameters, which may be invalid, or in the fields of its summary."""
    if "source" in given:
        source = given["source"]
        url = source.get("url") if isinstance(source, Mapping) else getattr(source, "url", source)
        name = re.sub(r"^https?://", "", str(url)).rstrip("/")
        return Subject("source", re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:200], name)
    market_id = str(given.get("region_id", given.get("structure_id")))
    known = market_id if market_id.isascii() and market_id.isdigit() else "0"
    return Subject("region", known, region_name(int(known)))
