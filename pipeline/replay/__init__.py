"""Replay: a second workspace over the same history, beside the first, until it takes over."""
