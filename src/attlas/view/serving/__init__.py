"""The page over HTTP, for the one person at this machine; the only door to fastapi, starlette and uvicorn."""
