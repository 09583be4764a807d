"""Training on a Ray cluster: takes what `naturelm train CONFIG` takes, and joins the cluster it runs on.

Always give --resume: a job that is started again resumes from the last checkpoint; without a checkpoint, training
begins.

ray job submit -- python jobs/train.py configs/train/stage1.yaml --workers 8 --resume
"""

import sys

from naturelm.cli import main

if __name__ == "__main__":
    # First, so that an --address among the arguments wins.
    main(["train", "run", "--address", "auto", *sys.argv[1:]])
