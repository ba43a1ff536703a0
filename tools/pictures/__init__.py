"""Pictures for the documents, made from the template and from runs on this machine."""
