"""Models of hubs (Hugging Face, ModelScope, folders and mirrors in their layout): named, listed, fetched, stored."""
