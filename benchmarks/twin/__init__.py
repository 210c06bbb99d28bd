"""What lightning_twin.py is made of: one update, a whole run, and scores, each as several trainers compute it."""
