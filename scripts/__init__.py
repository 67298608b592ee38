"""What people and CI start; `environment.py` needs no package and runs before there is one."""
