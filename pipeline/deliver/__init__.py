"""The deliver role: from a destination's topic to the destination, at least once, in order for each person."""

from collections.abc import Callable

from pipeline.settings import Settings


def run_deliver(
    settings: Settings,
    destination: str | None,
    until: Callable[[], bool],
    may_begin: Callable[[str], bool] | None = None,
) -> None:
    """Deliver to every destination in force, or to one, until `until()`; to each from when it `may_begin`, which is
    asked again and again: at once, if nothing is said.

    Raises:
        HeadwaterError: the broker cannot be read or written any more; started again, the role goes on where it was.
    """
    # The judgement in this folder knows no broker; only who runs the role loads one.
    from pipeline.deliver.role import at_once, run

    run(settings, destination, until, may_begin or at_once)


__all__ = ["run_deliver"]
