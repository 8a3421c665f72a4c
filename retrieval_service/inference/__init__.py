"""Attributes of items inferred from their texts, by labels of the deployment's own."""
