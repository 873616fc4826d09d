"""The page, and the JSON behind it."""
