"""Models as users write them: each class or function of these modules is an entry point, `zoo_of_users.values:Prune`.

None of them knows of vbench. `table.py` says what each must come to.
"""
