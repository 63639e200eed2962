"""What may leave, and to whom: from a change to the deliveries it leads to."""

from pipeline.activation.plan import (
    HOUR_MS,
    PROFILE_SECTIONS,
    QUIET_CAUSES,
    ActivationPlan,
    Destination,
    Mode,
    Profile,
    segment_delivery_id,
)

__all__ = [
    "HOUR_MS",
    "PROFILE_SECTIONS",
    "QUIET_CAUSES",
    "ActivationPlan",
    "Destination",
    "Mode",
    "Profile",
    "segment_delivery_id",
]
