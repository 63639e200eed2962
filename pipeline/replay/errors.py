"""What can go wrong with a replay."""

from pipeline.errors import HeadwaterError


class ReplayError(HeadwaterError):
    """The replay cannot be made, or cannot go on."""
