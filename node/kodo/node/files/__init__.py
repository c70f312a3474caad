"""Files: outputs, uploads, and the ledger of the disk."""
