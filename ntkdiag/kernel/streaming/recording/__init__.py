"""What a network did during a forward: which operations used which parameter."""
