"""From files to rows that are used: what they hold, which split they are of, which are left out and why."""
