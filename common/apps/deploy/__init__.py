"""The MONAI Deploy application. Its folder stands alone: nothing in it imports the rest of this package."""
