"""The pages: handlers that ask the API and render, one module for each room of the house."""
