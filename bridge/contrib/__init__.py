"""Parts for other frameworks and tools. Each is imported only where that framework or tool is used."""
