"""Rules of a catalogue: what the people who run it want of every list."""
