"""Sessions for web frameworks: one module or package for each, which needs the extra of the same name."""
