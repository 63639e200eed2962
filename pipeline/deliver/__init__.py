"""The deliver role: from a destination's topic to the destination, at least once, in order for each person."""

from collections.abc import Callable

from pipeline.settings import Settings


def _at_once(destination: str) -> bool:
    return True


def run_deliver(
    settings: Settings,
    destination: str | None,
    until: Callable[[], bool],
    may_begin: Callable[[str], bool] = _at_once,
) -> None:
    """Deliver to every destination in force, or to one, until `until()`; to each from when it `may_begin`, which is
    asked again and again.

    Raises:
        HeadwaterError: the broker cannot be read or written any more; started again, the role goes on where it was.
    """
    # The judgement in this folder knows no broker; only who runs the role loads one.
    from pipeline.deliver.role import run

    run(settings, destination, until, may_begin)


__all__ = ["run_deliver"]
