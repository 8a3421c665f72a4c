"""Model bundles: what was learned from a catalogue's events, in a folder each, one of them serving."""
