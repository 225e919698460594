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


def about_region(region_id: object) -> Subject:
    """Return the subject for a region's or a structure's id; 0 if it is not one."""
    given = str(region_id)
    known = given if given.isascii() and given.isdigit() else "0"
    return Subject("region", known, region_name(int(known)))


def about_source(url: str) -> Subject:
    """Return the subject for the URL of a source: `esi-evetech-net-markets-prices`."""
    name = re.sub(r"^https?://", "", url).rstrip("/")
    return Subject("source", re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:200], name)


def find_subject(parameters: Mapping[str, Any]) -> Subject:
    """Return the subject in a flow run's parameters, which may be invalid."""
    if "source" in parameters:
        return about_source(read_url(parameters["source"]))
    return about_region(parameters.get("region_id", parameters.get("structure_id")))


def read_url(source: object) -> str:
    """Return the URL in a parameter `source`, validated or not."""
    return str(source.get("url") if isinstance(source, Mapping) else getattr(source, "url", source))
