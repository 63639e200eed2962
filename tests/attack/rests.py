"""Long work everywhere: with `ATTACK_RESTING=1` a tick settles few profiles, whatever is assigned or absorbed is long
work too, and every turn of it is late, so that it rests again and again while all else goes on."""

from collections.abc import Mapping

from pipeline import roles
from pipeline.unify import stage

RESTING = "ATTACK_RESTING"


def apply(environment: Mapping[str, str]) -> None:
    """Make it so in this process, if the environment says so."""
    if RESTING not in environment:
        return
    stage.PROFILES_PER_TICK = 20
    stage._SWEEP = b'{"kind":"a'
    roles.LONG_TURN_S = 1e-6
