"""Features of profiles as of a past time: what a system that was stopped then would have had, and nothing later."""
