"""Stand-ins for AWS, Braintrust and Lambda on this machine, for the tests, `make run` and the benchmark."""
