"""Buckets: what lies at `gs://…`, `s3://…` or any other address of fsspec, as paths on this machine.

All code works on local paths; this room is the only one that talks to a store.  What is read is *mirrored* (`mirror`):
downloaded once, and again where the store's version of an object is another one.  What is written lies in a *working
folder* that is sent to the store while the command goes on (`sending`).  `staging` does both for a command's knobs.
"""

from tf_simclr.buckets.mirror import local
from tf_simclr.buckets.sending import check_sent, send_now

__all__ = ["check_sent", "local", "send_now"]
