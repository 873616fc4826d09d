"""LaunchDarkly's REST API: metrics, flags, experiments, projects."""
