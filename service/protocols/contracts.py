"""All protocols of one model version, by name: where a new one is put in."""

from __future__ import annotations

from service.protocols.contract import Contract
from service.protocols.paths import OWN
from service.protocols.predict import Endpoint
from service.repository import ServedModel


def create_contracts(model: ServedModel) -> dict[str, Contract]:
    """Create a model version's contracts."""
    return {OWN: Endpoint(model)}
