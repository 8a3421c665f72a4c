"""What lists are worth: accuracy, variety, ratings, and how sure that is."""
