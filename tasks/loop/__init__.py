"""How a loop begins, measures its policies, stops and ends."""
