"""The command line: `autodidact`, its flags, what it prints, how it ends."""
