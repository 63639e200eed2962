"""The door for programs: an HTTP collector that the SDKs people already have can talk to. See docs/collector.md."""
