"""Oracles: slow, plain restatements of what the platform promises, written from the design alone.

They share no code with the rooms they judge; of the project they use the shapes of records and the keys only.
"""
