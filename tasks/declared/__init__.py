"""Sources and records by declaration: any API with pages, without Python."""
