"""What trains, and what measures weights as training holds them. Each program is a module."""
