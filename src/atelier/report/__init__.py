"""The report of a study: claims settled, tables, figures and the page that holds them; the catalogue of all studies."""
