"""Measurements that a person can repeat; `README.md` beside this says how."""
