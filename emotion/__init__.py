"""Train, judge, explain and ship facial-expression classifiers; every verb is `python -m emotion.<verb>`."""
