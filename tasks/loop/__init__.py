"""How a loop starts, measures its policies, stops and ends."""
