"""Published layouts, both ways: one table of keys, conversion to our folders, export back."""
