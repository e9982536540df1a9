"""A sweep in parts: on the nodes of a cluster, or on the devices of one machine; and how its parts become one run.

`shards` parts the cells, `folder` holds what all sides read and write, `shard` is what a job runs, `slurm` and `local`
start jobs, `drive` sends them until every shard is measured, and `merge` joins their records.
"""
