"""An evaluation as JSON, as a page, as a table for a terminal."""
