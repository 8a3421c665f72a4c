"""What a training knows about who chose what, as ranking uses it: tables and vectors of a bundle, without I/O."""
