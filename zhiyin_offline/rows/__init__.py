"""Rows of import files, and the messages they become: what `zhiyin import` sends and what evaluation reads."""
