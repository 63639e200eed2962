"""A source of which ingest does not read the topic is told when it is applied; it would wait in silence."""

from pipeline.settings import Settings


def test_what_ingest_does_not_read() -> None:
    settings = Settings.model_validate({"prefix": "w.", "sources": "raw,/shop.orders"})
    assert settings.unread(["/shop.orders", "raw", "/w.raw"]) == []
    assert settings.unread(["/crm.rows", "orders", "raw", "orders"]) == ["/crm.rows", "orders"]
