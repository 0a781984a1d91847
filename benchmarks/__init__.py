"""Programs that measure and torture sameas; `make` starts them. Run from the root of the checkout."""
