"""What people write: segments, traits, identity rules, contracts, destinations; validated, compiled to frozen plans."""
