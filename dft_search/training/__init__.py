"""One run on the ranks it is given: sharding, optimizer, loop, checkpoints. Knows no Ray."""
