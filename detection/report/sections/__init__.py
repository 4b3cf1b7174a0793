"""The sections of a report: a module each, whose `build` makes the data that its template and its script show."""
