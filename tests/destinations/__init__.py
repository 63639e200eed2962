"""Destinations that are well, slow, flapping and dead, served side by side by a deliver worker that is killed."""
