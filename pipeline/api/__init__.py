"""The door for programs that ask: profiles and segments over HTTP, and live streams of their changes."""
