"""HTTP for OpenAI clients; no model math."""
