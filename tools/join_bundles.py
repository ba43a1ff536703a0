"""Joins the bundles of several machines, which built the function for one architecture each, into FOLDER.

    join_bundles.py FOLDER BUNDLE ...

The files that two bundles both have must be identical.
"""

import shutil
import sys
from pathlib import Path

from bundle_folder import SUMS, checked_digests, replace


def main():
    if len(sys.argv) < 3:
        sys.exit("Usage: join_bundles.py FOLDER BUNDLE ...")
    folder, *bundles = map(Path, sys.argv[1:])
    joined = {}
    for bundle in bundles:
        for name, digest in checked_digests(bundle).items():
            [known, source] = joined.setdefault(name, (digest, bundle))
            if known != digest:
                sys.exit(f"{name} in {bundle} is not the same as in {source}. Were they built from the same commit?")

    def write(new):
        for name, (_, bundle) in joined.items():
            shutil.copy(bundle / name, new / name)

    replace(folder.resolve(), write)
    print(*sorted([*joined, SUMS]), sep="\n")


main()
