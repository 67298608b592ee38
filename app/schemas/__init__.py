"""What we promise callers, as models of the OpenAPI document. Answers are built from these shapes, not by them."""
