"""Training: what a deployment learns from its own events, as a bundle that ranking serves."""
