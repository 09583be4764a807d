"""The archive job on a Ray cluster: takes what `naturelm process` takes, and joins the cluster it runs on.

ray job submit -- python jobs/process_archive.py /archive --out /tables --model naturelm-8b
"""

import sys

from naturelm.cli import main

if __name__ == "__main__":
    # First, so that an --address among the arguments wins.
    main(["process", "--address", "auto", *sys.argv[1:]])
