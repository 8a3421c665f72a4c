"""What was served: written down after the reply, read by Explain."""
