"""What serving.py is made of: a module for each question."""
