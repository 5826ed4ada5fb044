"""What policies answer, what rewards say of it, and what is measured of a policy on held-out rows."""
