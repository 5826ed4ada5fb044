"""Infrastructure: the services of one machine, and what is registered with them."""
