"""The build of what pyproject.toml describes, and, with HEADWATER_COMPILE=1, of the hot rooms as C.

    make compile                                              in this folder, beside the sources
    HEADWATER_COMPILE=1 pip wheel --no-build-isolation .      compiled rooms: needs mypy, types-PyYAML, a C compiler

Without it nothing is compiled and no compiler is asked for: the same sources run as Python. Why, and what it brings, is
in docs/decisions/compiled-rooms.md.
"""

import os

from setuptools import setup

# What every event passes through between the consumer and the producer.
HOT = (
    "pipeline/activation/plan.py",
    "pipeline/at_rest.py",
    "pipeline/identifiers.py",
    "pipeline/plans.py",
    "pipeline/profile/document.py",
    "pipeline/profile/fragment.py",
    "pipeline/profile/keeping.py",
    "pipeline/profile/values.py",
    "pipeline/runtime/in_time_order.py",
    "pipeline/runtime/kafka/arrivals.py",
    "pipeline/runtime/kafka/producer.py",
    "pipeline/runtime/overlay.py",
    "pipeline/runtime/rest.py",
    "pipeline/runtime/stepping.py",
    "pipeline/segments/accounts.py",
    "pipeline/segments/atoms.py",
    "pipeline/segments/leaves.py",
    "pipeline/segments/measures.py",
    "pipeline/segments/nodes.py",
    "pipeline/segments/plan.py",
    "pipeline/segments/predictions.py",
    "pipeline/segments/standing.py",
    "pipeline/segments/values.py",
    "pipeline/segments/windows.py",
    "pipeline/unify/dedup.py",
    "pipeline/unify/evidence.py",
    "pipeline/unify/folding.py",
    "pipeline/unify/forms.py",
    "pipeline/unify/history.py",
    "pipeline/unify/holder.py",
    "pipeline/unify/keeping.py",
    "pipeline/unify/memberships.py",
    "pipeline/unify/news.py",
    "pipeline/unify/profile.py",
    "pipeline/unify/publish.py",
    "pipeline/unify/route.py",
    "pipeline/unify/settling.py",
    "pipeline/unify/stage.py",
    "pipeline/unify/task.py",
    "pipeline/unify/writer.py",
    "pipeline/wire/values.py",
)


def extensions() -> list[object]:
    """The compiled modules, if they are asked for."""
    if os.environ.get("HEADWATER_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    # The name of what they share: a module of the package, for an editable install finds nothing beside it.
    return list(mypycify([*HOT], opt_level="2", debug_level="0", group_name="pipeline.hot"))


if __name__ == "__main__":
    setup(ext_modules=extensions())
