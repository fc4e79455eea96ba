"""What the tests of the reviewer's workbench share."""
