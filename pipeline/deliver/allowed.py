"""Whether what is sent again by hand may still leave: who allowed it when it was decided may have said no since.

In the pipeline a delivery is decided in the order of what people say. A dead letter stands outside of it: it may be
days old, and a trigger that gets it would write to somebody who has asked since not to be written to.
"""

import msgspec

from pipeline.activation import ActivationPlan
from pipeline.definitions.catalog import activation_plan
from pipeline.definitions.log import read_catalog
from pipeline.deliver.forgotten import TAKES_BACK
from pipeline.errors import LookupFailed
from pipeline.lookup import Value, find_profile
from pipeline.records import UNREADABLE, Delivery
from pipeline.runtime.kafka.doors import current_value
from pipeline.settings import Settings

_decode = msgspec.json.Decoder(Delivery).decode


def may_leave(plan: ActivationPlan, body: bytes, value: Value) -> bool:
    """Whether a delivery may leave by now; also what is none, which is refused where it is read."""
    try:
        delivery = _decode(body)
    except UNREADABLE:
        return True
    if delivery.action in TAKES_BACK or delivery.action == "alert" or delivery.body.get("entity") == "account":
        return True
    if all(each.name != delivery.destination for each in plan.destinations):
        return True
    try:
        return not plan.refusal(delivery.destination, find_profile(delivery.profile_id, value))
    except LookupFailed:
        return False  # erased, or expired: there is nobody who allows it


class MayLeave:
    """The same, of a workspace as it is now."""

    def __init__(self, settings: Settings) -> None:
        """Raises BrokerError."""
        self._settings = settings
        catalog = read_catalog(settings)
        self._plan = activation_plan(catalog, catalog.latest)

    def __call__(self, body: bytes) -> bool:
        return may_leave(self._plan, body, lambda topic, key: current_value(self._settings, topic, key))
