"""Running programs that nobody has read: how they are sandboxed, and how what they answer is judged from outside."""
