"""Recommenders to compare with, one a file. Each learns from a split's training rows and asks with a case's history."""
