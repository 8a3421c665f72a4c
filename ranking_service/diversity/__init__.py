"""Pure re-ranking for diversity: relevance and vectors in, an order out."""
