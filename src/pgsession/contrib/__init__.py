"""Sessions for web frameworks: a module or package for each, which needs the extra of its name, if there is one."""
