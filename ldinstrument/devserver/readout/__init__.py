"""What the events say: values of units, statistics, iterations and health."""
