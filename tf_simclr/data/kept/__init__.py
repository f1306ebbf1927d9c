"""Images that are kept smaller than they came, so that what reads them often has little to do."""
