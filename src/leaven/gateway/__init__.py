"""The data plane over HTTP: it answers predictions, takes feedback, and never waits for the control plane."""
