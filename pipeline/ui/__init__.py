"""The room for people: pages made on the server, which ask the API and know no other part of the pipeline."""
