"""A random day of people, merges and failures; then what each destination holds is the projection of the profiles."""
