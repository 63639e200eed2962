"""The history under lock: a key for each routing identifier, which can be destroyed, and the codec that uses it."""

from pipeline.vault.keyring import DEPTH, SEED_BYTES, KeyRing, leaf_of
from pipeline.vault.sealing import SEALED, Sealer, name_mark, sealed_name

__all__ = ["DEPTH", "SEALED", "SEED_BYTES", "KeyRing", "Sealer", "leaf_of", "name_mark", "sealed_name"]
