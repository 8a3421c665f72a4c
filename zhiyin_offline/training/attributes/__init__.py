"""What a training makes of attributes of items and users, and of circumstances."""
