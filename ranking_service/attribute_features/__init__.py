"""What a learned ranker reads beside what all catalogues have: attributes of items and users, and circumstances."""
