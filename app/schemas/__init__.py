"""What we promise callers, as models for the OpenAPI document and for what callers send."""
