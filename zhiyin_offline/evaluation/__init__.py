"""Offline evaluation: the services' own code on recorded events, beside baselines."""
