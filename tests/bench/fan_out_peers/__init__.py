"""The same command on many hosts by other means. Each is a program: HOSTS KEY USER, HOSTS being a file."""
