"""The fake control unit: a real executable JAR, and what runs it."""
