"""What small_data.py is made of: data sets and their splits, the trainers, one measured process each, the tables."""
