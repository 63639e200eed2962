"""Faults of what keeps the erased out, each of which the worlds of erasures must find: see faults.py."""

from tests.simulation.fault_kinds import Fault

_GUARD, _ROUTE, _TRANSFER = "pipeline.ingest.guard", "pipeline.unify.route", "pipeline.unify.transfer"

ERASURE_FAULTS: tuple[Fault, ...] = (
    Fault(
        "what got past the door is taken in",
        _ROUTE,
        (("        if not consents_anew(event, actor.kept_out):", "        if False:"),),
        "erasures",
    ),
    Fault(
        "an old consent brings somebody back behind the door",
        "pipeline.profile.fragment",
        (("return event.time > erased_ms and any(", "return any("),),
        "erasures",
    ),
    Fault(
        "a consent counts for the route only",
        _ROUTE,
        (("    if actor is not None and 0 < actor.kept_out < message.time:", "    if False and actor is not None:"),),
        "erasures",
    ),
    Fault(
        "what an erasure keeps out is not in the state",
        _ROUTE,
        (("kept_out=max(message.erased_at or task.clock, 1) if message.keep_out else 0,", "kept_out=0,"),),
        "erasures",
    ),
    Fault(
        "every erasure keeps out",
        _ROUTE,
        (
            (
                "kept_out=max(message.erased_at or task.clock, 1) if message.keep_out else 0,",
                "kept_out=max(task.clock, 1),",
            ),
        ),
        "erasures",
    ),
    Fault(
        "the identity stage does not pass on who is kept out",
        "pipeline.identity.decisions",
        (("message.request_id, message.keep_out\n        erasure", "message.request_id, False\n        erasure"),),
        "erasures",
    ),
    Fault(
        "the door lets in whoever was erased",
        _GUARD,
        (("    if there is not None and not consents_after(event, there.at):\n        return False\n", ""),),
        "erasures",
    ),
    Fault(
        "the door takes an old consent for a new one",
        _GUARD,
        (("or event.time <= at:", "or event.time < at - 3_600_000:"),),
        "erasures",
    ),
    Fault(
        "the door leaves an erased identifier in somebody's event",
        _GUARD,
        (("            _strip(event, text)\n", "            pass\n"),),
        "erasures",
    ),
    Fault(
        "the door takes a no for a consent",
        _GUARD,
        (("    return stated is True or stated ==", "    return isinstance(stated, bool) or stated =="),),
        "erasures",
    ),
    Fault(
        "who is called back from the erased goes on knowing where they were",
        _TRANSFER,
        (("            _let_bury(task, key, actor, message.holder, name)\n", "            pass\n"),),
        "erasures",
        seeds=(997_001_708,),
    ),
    Fault(
        "who is known anew is buried with their former life",
        _TRANSFER,
        (
            ("    if name in group.given and group.given[name][1] < epoch:", "    if name in group.given:"),
            ("        if to == name and given_epoch < epoch:", "        if to == name:"),
        ),
        "erasures",
        seeds=(998_001_062,),
    ),
    Fault(
        "what got past the door links the erased to others",
        "pipeline.identity.evidence",
        (("            if decided.kept_out:", "            if False:"),),
        "erasures",
    ),
    Fault(
        "the identity stage does not hear of a consent anew",
        "pipeline.identity.decisions",
        (("        decided.kept_out = 0\n", "        pass\n"),),
        "erasures",
    ),
)
