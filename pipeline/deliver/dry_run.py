"""A destination on trial: what it would be sent stands in a file, and it hears nothing."""

from collections.abc import Sequence
from pathlib import Path

from connectors import Outcome, rejected
from connectors.file import FileConnector, FileOptions
from pipeline.deliver.erased import ERASED
from pipeline.records import Delivery

_NOT_ASKED = "it is in a dry run, and was not asked; if it was not in one before, see to it there"


class DryRun(FileConnector):
    """The lines of the kind `file`. A request to delete a person leaves the file without them, and the receipt says
    that the destination itself was not asked."""

    def __init__(self, destination: str, path: Path) -> None:
        super().__init__(destination, FileOptions(path=path))

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Append all, or none."""
        return [
            rejected(_NOT_ASKED) if delivery.action == ERASED and outcome.status == "delivered" else outcome
            for delivery, outcome in zip(deliveries, super().deliver(deliveries), strict=True)
        ]
