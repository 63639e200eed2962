"""The stage that puts actors, profiles, segments and activation together: an actor per identifier."""

from pipeline.unify.stage import UnifyStage

__all__ = ["UnifyStage"]
