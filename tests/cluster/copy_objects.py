"""Copy a folder to a new bucket, or from a bucket to a folder: `python copy_objects.py up|down SOURCE DEST`."""

import os
import sys
import urllib.request
from pathlib import Path

import obstore
from obstore.store import from_url

CLIENT = {"allow_http": True}


def up(folder: str, url: str) -> None:
    """Upload every file of a folder."""
    bucket = url.removeprefix("s3://").partition("/")[0]
    request = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    store = from_url(url, client_options=CLIENT)
    for path in sorted(Path(folder).iterdir()):
        obstore.put(store, path.name, path.read_bytes())


def down(url: str, folder: str) -> None:
    """Download every object of a prefix."""
    store = from_url(url, client_options=CLIENT)
    for batch in obstore.list(store):
        for meta in batch:
            path = Path(folder) / meta["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(obstore.get(store, meta["path"]).bytes()))


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]](*sys.argv[2:])
