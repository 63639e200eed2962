"""What may leave, and to whom: from a change to the deliveries it leads to."""

from pipeline.activation.consent import Basis, ConsentPolicy, Region, granted
from pipeline.activation.data import FREE, DataRules, Fields, Rule
from pipeline.activation.destination import HOUR_MS, PROFILE_SECTIONS, QUIET_CAUSES, Destination, Mode, Transform
from pipeline.activation.erasure import erasures, holders, holders_of_segments
from pipeline.activation.explaining import Finding, about_person, about_segment, not_for_it
from pipeline.activation.ids import segment_delivery_id
from pipeline.activation.plan import ActivationPlan, Profile
from pipeline.activation.told import PROFILE, Told, Turn

__all__ = [
    "FREE",
    "HOUR_MS",
    "PROFILE",
    "PROFILE_SECTIONS",
    "QUIET_CAUSES",
    "ActivationPlan",
    "Basis",
    "ConsentPolicy",
    "DataRules",
    "Destination",
    "Fields",
    "Finding",
    "Mode",
    "Profile",
    "Region",
    "Rule",
    "Told",
    "Transform",
    "Turn",
    "about_person",
    "about_segment",
    "erasures",
    "granted",
    "holders",
    "holders_of_segments",
    "not_for_it",
    "segment_delivery_id",
]
