"""Headwater: a real-time customer data platform that is nothing but a streaming pipeline on Kafka."""

__version__ = "0.1.0"
