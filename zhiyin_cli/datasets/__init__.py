"""Public data sets as import files, one file per data set."""
