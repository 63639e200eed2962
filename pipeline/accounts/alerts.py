"""Alerts: that an account entered a segment, as something a seller can act on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert, compiled. `owner`: the account's trait that says to whom it goes, else `fallback`. `again_after_ms`: no
    second one for the same account sooner than that, also if it has left the segment meanwhile. `traits`: those of the
    account that go along."""

    name: str
    segment: str
    version: int = 1
    owner: str = "owner"
    fallback: str = ""
    message: str = ""
    traits: tuple[str, ...] = ()
    again_after_ms: int = 0
