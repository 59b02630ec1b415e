"""Scripts that print one sale with public receipt libraries, to keep their bytes for the tests."""
