"""Looking into a trained model: ways between its samples, and samples made of two."""
