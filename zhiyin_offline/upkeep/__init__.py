"""Looking after what the services keep: proof that it agrees, copies of it, and bringing copies back."""
