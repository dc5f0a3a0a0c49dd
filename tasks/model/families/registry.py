"""The families of models that can be exported. A further one is a module and a line here."""

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

# What a ``model_type`` can name.
MODEL_TYPES = tuple(name for family in FAMILIES for name in family.architectures)


def family_of(architecture: str) -> Family:
    """The family of an architecture; SAM 2's for a YAML file, and where the weights decide."""
    return next((each for each in FAMILIES if architecture in each.architectures), sam2.FAMILY)


def possible_families(architecture: str) -> tuple[Family, ...]:
    """The family of an architecture, or those that `AUTO` may turn out to be."""
    if architecture != AUTO:
        return (family_of(architecture),)
    return tuple(each for each in FAMILIES if each.layout == sam2.FAMILY.layout)
