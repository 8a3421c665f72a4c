"""Where candidates come from, one source a file. A source plans what to ask and judges every candidate, without I/O."""
