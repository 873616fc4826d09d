"""The demo: an instrumented help desk, real traffic, and an experiment in a local LaunchDarkly."""
