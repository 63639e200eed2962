"""Requests about people's data: carried out, and proven by receipts. The door to `keys`, `suppressions` and `audit`."""
