"""What stands in for AWS, Braintrust and Lambda on this machine, for the tests, `make run` and the bench."""
