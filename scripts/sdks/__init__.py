"""SDKs: generated from the OpenAPI document, each with one hand-written file, and tried against a gateway."""
