"""Parts for frameworks and tools of other people, which are imported only where these are used."""
