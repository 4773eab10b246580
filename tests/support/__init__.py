"""What several test files share: `pythonpath` in pyproject.toml finds it."""
