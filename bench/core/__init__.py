"""The core job — a keyed profile and twenty window rules — done by ourselves and by our peers, in one run."""
