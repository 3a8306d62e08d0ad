"""What is more than a pattern: compositions around the softmax engine, one file each."""
