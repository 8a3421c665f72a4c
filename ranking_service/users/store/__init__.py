"""Everything of the user service that speaks SQL."""
