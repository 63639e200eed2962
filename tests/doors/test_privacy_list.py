"""The list of requests on a narrow terminal: the id is what has to be typed to see a receipt."""

from pipeline.cli._console import Console
from pipeline.cli.privacy import _list
from pipeline.records import PrivacyReceipt


def test_the_id_of_a_request_is_whole() -> None:
    receipt = PrivacyReceipt("20261127-fd2f840cd8", "erase", "subject", 1_790_000_000_000, "done", "root")
    receipt.finished_at = receipt.requested_at + 5_000
    other = PrivacyReceipt("20261127-fa34b30670", "rectify", "subject", 1_790_000_000_000, "working", "ui.operator")
    console = Console(width=80)
    with console.capture() as captured:
        _list([receipt, other], console)
    assert "20261127-fd2f840cd8" in captured.get() and "…" not in captured.get()
