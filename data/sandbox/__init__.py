"""Running programs that nobody has read: how they are shut in, and how what they answer is judged from outside."""
