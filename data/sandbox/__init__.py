"""Run untrusted programs: how they are sandboxed, and how their answers are judged from outside."""
