"""What the devices on the counter do for a till: display, scale, scanner, serial till, capture."""
