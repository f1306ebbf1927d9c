"""The COVID-19 study."""
