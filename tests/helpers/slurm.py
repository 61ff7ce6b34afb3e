"""The environment of the tasks in a SLURM job of two tasks."""

from __future__ import annotations

SLURM_HERE = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_STEP_ID": "0",
              "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_ID": "1", "SLURM_NODELIST": "127.0.0.1",
              "SLURM_JOB_NAME": "train"}  # fmt: skip
