"""`headwater up`: everything on this machine, and a window on it."""
