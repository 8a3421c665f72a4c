"""Looks at a deployment and says what is wrong with it and what to do: `zhiyin doctor`. Changes nothing."""
