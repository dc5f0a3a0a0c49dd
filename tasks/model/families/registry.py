"""The families of models that can be exported. To add one, write a module and list it here."""

from __future__ import annotations

from tasks.model.families import edgetam, efficienttam, sam, sam2
from tasks.model.families.family import Family
from tasks.model.published import AUTO

FAMILIES: tuple[Family, ...] = (
    sam2.FAMILY,
    edgetam.FAMILY,
    efficienttam.FAMILY,
    sam.FAMILY,
)

# The names that ``model_type`` accepts.
MODEL_TYPES = tuple(name for family in FAMILIES for name in family.architectures)


def family_of(architecture: str) -> Family:
    """The family of an architecture; SAM 2 for a YAML file, and for `AUTO`."""
    return next((each for each in FAMILIES if architecture in each.architectures), sam2.FAMILY)


def possible_families(architecture: str) -> tuple[Family, ...]:
    """The family of an architecture; for `AUTO` all families that the weights may belong to."""
    if architecture != AUTO:
        return (family_of(architecture),)
    return tuple(each for each in FAMILIES if each.layout == sam2.FAMILY.layout)
