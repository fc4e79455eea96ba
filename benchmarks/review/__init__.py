"""What the reviewer's sample and its rate of errors are worth, simulated."""
