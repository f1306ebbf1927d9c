"""A radiograph's file, read: DICOM and pictures, in processes that may fail."""
